"""Batches of rows: in random order, and of similar size where padding costs."""

import math

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
"""Indices of examples among all that a task knows: rows of its corpus, or pairs."""

BATCHES_PER_POOL = 32
"""Batches that are packed by size together: enough for little padding, few enough of an epoch to stay random."""


def shuffled_batches(rows: Indices, batch_size: int, seed: int, epoch: int) -> list[Indices]:
    """All rows in a random order, determined by (seed, epoch), cut into batches."""
    order = np.random.default_rng([seed, epoch]).permutation(rows)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def shuffled_bucketed_batches(
    rows: Indices, sizes: NDArray[np.int64], batch_size: int, seed: int, epoch: int
) -> list[Indices]:
    """All rows in batches of similar size, in a random order: the rows are shuffled and cut into pools, each pool is
    packed by size, and the batches are shuffled again. ``sizes``: as for :func:`bucketed_batches`.
    """
    batches = [
        batch
        for pool in shuffled_batches(rows, batch_size * BATCHES_PER_POOL, seed, epoch)
        for batch in bucketed_batches(pool, sizes, batch_size)
    ]
    order = np.random.default_rng([seed, epoch, 1]).permutation(len(batches))
    return [batches[index] for index in order]


def bucketed_batches(rows: Indices, sizes: NDArray[np.int64], batch_size: int) -> list[Indices]:
    """Pack rows into batches that need little padding: sorted by the first size into strips, each of these by the
    second, and so on.

    Shape:
        sizes: (N, S), by row; each of the S is padded to the largest in the batch.
    """
    dimensions = sizes.shape[1]
    batches = max(1, math.ceil(len(rows) / batch_size))
    strips = round(batches ** (1 / dimensions))
    length = math.ceil(batches / strips) * batch_size
    order = rows[np.argsort(sizes[rows, 0], kind="stable")]
    packed = [order[start : start + length] for start in range(0, len(order), length)]
    if dimensions == 1:
        return packed
    return [batch for strip in packed for batch in bucketed_batches(strip, sizes[:, 1:], batch_size)]
