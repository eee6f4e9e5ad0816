"""Explanations of ratings."""
