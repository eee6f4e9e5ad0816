"""Corpora for those who bring none: the Musical Instruments reviews, and synthetic ones."""
