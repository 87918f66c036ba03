"""From a study's file to its cells: reading, checking, naming, estimating."""
