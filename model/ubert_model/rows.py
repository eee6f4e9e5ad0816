"""How many rows of states a review has: [CLS] has one of its own, of the other tokens neighbours share one."""

from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:  # the arithmetic is the same for numbers and for arrays, and configuration needs no numpy
    import numpy as np
    from numpy.typing import NDArray


@overload
def pooled_rows(tokens: int, pooled: int) -> int: ...
@overload
def pooled_rows(tokens: "NDArray[np.int64]", pooled: int) -> "NDArray[np.int64]": ...
def pooled_rows(tokens: "int | NDArray[np.int64]", pooled: int) -> "int | NDArray[np.int64]":
    """Rows that L tokens become."""
    return (tokens > 0) * (1 - (1 - tokens) // pooled)
