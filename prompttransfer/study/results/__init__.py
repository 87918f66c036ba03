"""From finished cells to tables, folders and pages."""
