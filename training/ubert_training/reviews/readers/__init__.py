"""Readers of review files: each yields numbered records whose fields are named as in the file."""
