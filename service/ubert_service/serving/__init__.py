"""Bundles made ready to serve, the live one and its shadow."""
