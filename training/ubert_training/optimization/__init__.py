"""Gradient steps: batches, losses, the loop and its checkpoints."""
