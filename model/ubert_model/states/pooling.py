"""Fewer rows a review: [CLS] keeps its own, of the other tokens neighbours share one."""

from typing import overload

import numpy as np
from numpy.typing import NDArray

from ubert_model.states.review import FloatMatrix


@overload
def pooled_rows(tokens: int, pooled: int) -> int: ...
@overload
def pooled_rows(tokens: NDArray[np.int64], pooled: int) -> NDArray[np.int64]: ...
def pooled_rows(tokens: int | NDArray[np.int64], pooled: int) -> int | NDArray[np.int64]:
    """Rows that L tokens become."""
    return (tokens > 0) * (1 - (1 - tokens) // pooled)


def pool_neighbours(values: FloatMatrix, pooled: int) -> FloatMatrix:
    """The first row, then means of ``pooled`` successive rows: (L, D) → (1 + ⌈(L − 1) / pooled⌉, D).

    The last row may stand for fewer. [CLS] stands apart because it sums up the review: averaged with its neighbour it
    would cost half as much accuracy again (README, Decisions).
    """
    if pooled == 1 or not len(values):
        return values
    starts = np.r_[0, np.arange(1, len(values), pooled)]
    counts = np.diff(np.r_[starts, len(values)])
    # Divided before they are added: the sum of two values near the largest float32 would overflow.
    shares = values / np.repeat(counts, counts).astype(np.float32)[:, None]  # (L, D)
    return np.add.reduceat(shares, starts, axis=0)
