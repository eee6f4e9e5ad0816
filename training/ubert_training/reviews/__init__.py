"""The review table, the resumable import that makes it, and readers of the public formats."""
