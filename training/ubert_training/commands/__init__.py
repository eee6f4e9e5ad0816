"""Command-line commands, one function each; ``ubert_training.cli`` assembles the program.

A command imports the modules that compute inside its function, after it has checked its flags and paths: importing
torch and transformers takes seconds, and neither ``--help`` nor a wrong path should wait for them.
"""
