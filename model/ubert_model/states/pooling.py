"""Fewer rows a review: neighbouring tokens share one."""

import numpy as np

from ubert_model.states.review import FloatMatrix


def pooled_rows(tokens: int, pooled: int) -> int:
    """Rows that L tokens become."""
    return -(-tokens // pooled)


def pool_neighbours(values: FloatMatrix, pooled: int) -> FloatMatrix:
    """Means of ``pooled`` successive rows: (L, D) → (⌈L / pooled⌉, D); the last row may stand for fewer."""
    if pooled == 1 or not len(values):
        return values
    starts = np.arange(0, len(values), pooled)
    counts = np.minimum(pooled, len(values) - starts).astype(np.float32)
    # Divided before they are added: the sum of two values near the largest float32 would overflow.
    return np.add.reduceat(values / np.repeat(counts, counts.astype(np.int64))[:, None], starts, axis=0)
