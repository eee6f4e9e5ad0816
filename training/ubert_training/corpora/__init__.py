"""Corpora for users without reviews of their own: Amazon's Musical Instruments, and synthetic reviews."""
