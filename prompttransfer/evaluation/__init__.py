"""A task in a backbone's tokens, and the score of adaptations on it."""
