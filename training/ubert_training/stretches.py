"""Arrays of different lengths, end to end in one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Stretches(Sequence[NDArray[Any]]):
    """N of them; an object for each of millions would take several times the memory of what is in it.

    Shape:
        values: (T, ...); starts: (N + 1,), where each begins, and the last ends.
    """

    values: NDArray[Any]
    starts: NDArray[np.int64]

    def __getitem__(self, number: Any) -> Any:
        return self.values[self.starts[number] : self.starts[number + 1]]

    def __len__(self) -> int:
        return len(self.starts) - 1
