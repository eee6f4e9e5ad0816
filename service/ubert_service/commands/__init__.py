"""The commands: serve, and what an operator does beside it."""
