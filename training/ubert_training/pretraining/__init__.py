"""Pre-training (Figure 2): the corpus, masking and the two tasks."""
