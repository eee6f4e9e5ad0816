"""Readers of review files. Each yields numbered records, whose fields have the names that they have in the file."""
