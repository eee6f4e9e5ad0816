"""A ragged array: arrays of different lengths, stored end to end in one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class RaggedArray(Sequence[NDArray[Any]]):
    """A ragged array of N rows. With millions of rows, a numpy object each would take several times their memory.

    Shape:
        values: (T, ...); starts: (N + 1,): row n is ``values[starts[n] : starts[n + 1]]``.
    """

    values: NDArray[Any]
    starts: NDArray[np.int64]

    def __getitem__(self, number: Any) -> Any:
        return self.values[self.starts[number] : self.starts[number + 1]]

    def __len__(self) -> int:
        return len(self.starts) - 1
