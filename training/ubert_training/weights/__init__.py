"""Weights on disk: BERT checkpoints, and the models that each stage leaves for the next."""
