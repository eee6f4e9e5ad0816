"""Reviews in: readers of the public formats, the resumable import, and the review table."""
