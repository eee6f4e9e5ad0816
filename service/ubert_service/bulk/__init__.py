"""Rating a file of pairs, by the scoring that answers ``/predict``."""
