"""Long sequences in batches that fit into memory, or into one request."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def batches(sequence: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Consecutive slices of at most ``size`` elements."""
    for start in range(0, len(sequence), size):
        yield sequence[start : start + size]
