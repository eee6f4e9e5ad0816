"""Weights on disk: of backbones, and of each stage for the next."""
