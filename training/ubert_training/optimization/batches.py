"""Rows cut into batches: in random order, and of like size where padding costs."""

import math

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]
"""Of examples among all that a task knows: rows of its corpus, or pairs."""

BATCHES_PER_STRETCH = 32
"""Packed by size together: enough for little padding, and still few of an epoch, so that batches stay random."""


def shuffled_batches(rows: Positions, batch_size: int, seed: int, epoch: int) -> list[Positions]:
    """All rows in a random order that follows from (seed, epoch), cut into batches."""
    order = np.random.default_rng([seed, epoch]).permutation(rows)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def shuffled_batches_of_like_size(
    rows: Positions, sizes: NDArray[np.int64], batch_size: int, seed: int, epoch: int
) -> list[Positions]:
    """All rows in batches of like size, in a random order: shuffled, cut into stretches, packed within a stretch,
    and the batches shuffled again. ``sizes``: as for :func:`batches_of_like_size`.
    """
    batches = [
        batch
        for stretch in shuffled_batches(rows, batch_size * BATCHES_PER_STRETCH, seed, epoch)
        for batch in batches_of_like_size(stretch, sizes, batch_size)
    ]
    order = np.random.default_rng([seed, epoch, 1]).permutation(len(batches))
    return [batches[index] for index in order]


def batches_of_like_size(rows: Positions, sizes: NDArray[np.int64], batch_size: int) -> list[Positions]:
    """Pack rows into batches that need little padding: strips of like first size, cut by the second, and so on.

    Shape:
        sizes: (N, S), by row: each of the S is padded to the largest of the batch.
    """
    dimensions = sizes.shape[1]
    batches = max(1, math.ceil(len(rows) / batch_size))
    strips = round(batches ** (1 / dimensions))
    length = math.ceil(batches / strips) * batch_size
    order = rows[np.argsort(sizes[rows, 0], kind="stable")]
    packed = [order[start : start + length] for start in range(0, len(order), length)]
    if dimensions == 1:
        return packed
    return [batch for strip in packed for batch in batches_of_like_size(strip, sizes[:, 1:], batch_size)]
