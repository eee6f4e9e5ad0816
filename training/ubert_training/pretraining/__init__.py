"""Pre-training (Figure 2): masking and its two tasks."""
