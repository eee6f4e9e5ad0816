"""How many rows are left of a review's tokens, or of its rows: one for [CLS], and one for each group of neighbours."""

from typing import Any, TypeVar

Length = TypeVar("Length")
"""An integer, or an array or tensor of integers: the arithmetic is the same, and this module needs no library."""


def pooled_rows(length: Length, pooled: int) -> Length:
    """Rows of L tokens if ``pooled`` neighbours share a row: 1 + ⌈(L − 1) / pooled⌉, or 0 without tokens."""
    tokens: Any = length
    rows: Length = (tokens > 0) * (1 - (1 - tokens) // pooled)
    return rows
