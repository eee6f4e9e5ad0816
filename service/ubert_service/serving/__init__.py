"""Loaded bundles, live and shadow: their readiness, promotion and comparison."""
