"""A ragged array: arrays of different lengths, stored end to end in one."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class RaggedArray:
    """A ragged array of N rows. With millions of rows, a numpy object each would take several times their memory.

    Shape:
        values: (T, ...); starts: (N + 1,): row n is ``values[starts[n] : starts[n + 1]]``.
    """

    values: NDArray[Any]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> NDArray[Any]:
        """One row, counted from 0. Raises ``IndexError`` outside the array."""
        if row < 0:
            raise IndexError(row)
        return self.values[self.starts[row] : self.starts[row + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Length of each row, (N,)."""
        return np.diff(self.starts)


def flat_indices(rows: NDArray[np.int64], starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices of the values of some rows in the flat array, row after row.

    Shape:
        rows: (M,); starts, lengths: (N,). Output: (sum of the M lengths,).
    """
    counts = lengths[rows]
    ends = np.cumsum(counts)
    within = np.arange(int(counts.sum())) - np.repeat(ends - counts, counts)
    return np.repeat(starts[rows], counts) + within
