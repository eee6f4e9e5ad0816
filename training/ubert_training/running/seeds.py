"""Seeds of random generators."""

MOST_SEED = 2**32 - 1
"""Some libraries take no greater one, and the last of them is only called when training is over."""
