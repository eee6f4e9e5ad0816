"""Pooling neighbouring rows, so that a review has fewer."""

import numpy as np
from numpy.typing import NDArray

FloatMatrix = NDArray[np.float32]


def pool_neighbours(values: FloatMatrix, pooled: int) -> FloatMatrix:
    """The first row, then means over ``pooled`` successive rows: (L, D) → (1 + ⌈(L − 1) / pooled⌉, D).

    The last mean may be over fewer rows. [CLS] keeps its own because it summarises the review: averaging it with its
    neighbour would raise the loss of accuracy by half (README, Decisions).
    """
    if pooled == 1 or not len(values):
        return values
    starts = np.r_[0, np.arange(1, len(values), pooled)]
    counts = np.diff(np.r_[starts, len(values)])
    # Divide before adding: the sum of two values near the largest float32 would overflow.
    shares = values / np.repeat(counts, counts).astype(np.float32)[:, None]  # (L, D)
    return np.add.reduceat(shares, starts, axis=0)
