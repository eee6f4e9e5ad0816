"""Rates a file of pairs with the scoring of ``/predict``."""
