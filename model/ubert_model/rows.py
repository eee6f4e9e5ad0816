"""How many rows of states a review has: one for [CLS], and one for each group of neighbouring tokens."""

from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:  # the arithmetic is the same for numbers and arrays, and the configuration needs no numpy
    import numpy as np
    from numpy.typing import NDArray


@overload
def pooled_rows(tokens: int, pooled: int) -> int: ...
@overload
def pooled_rows(tokens: "NDArray[np.int64]", pooled: int) -> "NDArray[np.int64]": ...
def pooled_rows(tokens: "int | NDArray[np.int64]", pooled: int) -> "int | NDArray[np.int64]":
    """Rows of L tokens if ``pooled`` neighbours share a row: 1 + ⌈(L − 1) / pooled⌉, or 0 without tokens."""
    return (tokens > 0) * (1 - (1 - tokens) // pooled)
