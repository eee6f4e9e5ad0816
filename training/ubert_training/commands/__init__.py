"""Command-line commands, one function each; the program itself is assembled in ``ubert_training.cli``.

A command imports what computes in its function, once its flags and paths are found to be right: torch and transformers
take seconds, and neither ``--help`` nor a wrong path is to wait for them.
"""
