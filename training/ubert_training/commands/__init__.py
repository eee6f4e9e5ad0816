"""Command-line commands, one function each; the program itself is assembled in ``ubert_training.cli``."""
