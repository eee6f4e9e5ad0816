"""`ubert bench accuracy`: models, their variants and baselines, on the same folds, every cell computed once."""
