"""Batches: every row once, rows of similar size together, shuffled by seed and epoch."""

import math

import numpy as np
import pytest

from ubert_training.optimization.batches import (
    Indices,
    bucketed_batches,
    shuffled_batches,
    shuffled_bucketed_batches,
)

SEED = 5
SIZE = 8
ROWS = np.arange(10, 1210)


def random_sizes(dimensions: int) -> Indices:
    """Distributed as those of histories: most are short, a few long."""
    return np.random.default_rng(SEED).geometric(0.05, size=(ROWS[-1] + 1, dimensions))


def padded_size(batches: list[Indices], sizes: Indices) -> int:
    return sum(len(batch) * int(np.prod(sizes[batch].max(axis=0))) for batch in batches)


@pytest.mark.parametrize("dimensions", [1, 2])
@pytest.mark.parametrize("count", [0, 1, SIZE, 100, len(ROWS)])
def test_every_row_is_in_exactly_one_batch(dimensions: int, count: int) -> None:
    sizes = random_sizes(dimensions)
    for batches in (
        bucketed_batches(ROWS[:count], sizes, SIZE),
        shuffled_bucketed_batches(ROWS[:count], sizes, SIZE, SEED, 0),
    ):
        assert sorted(row for batch in batches for row in batch.tolist()) == ROWS[:count].tolist()
        assert all(0 < len(batch) <= SIZE for batch in batches)


@pytest.mark.parametrize(("dimensions", "saved"), [(1, 0.5), (2, 0.7)])
def test_bucketing_saves_most_of_the_padding(dimensions: int, saved: float) -> None:
    sizes = random_sizes(dimensions)
    needed = int(np.prod(sizes[ROWS], axis=1).sum())
    padding = padded_size(shuffled_batches(ROWS, SIZE, SEED, 0), sizes) - needed
    padding_of_buckets = padded_size(shuffled_bucketed_batches(ROWS, sizes, SIZE, SEED, 0), sizes) - needed
    assert padding_of_buckets < (1 - saved) * padding


def test_an_epoch_is_reproducible_and_differs_from_another() -> None:
    sizes = random_sizes(2)
    first, again, other = (shuffled_bucketed_batches(ROWS, sizes, SIZE, SEED, epoch) for epoch in (0, 0, 1))
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert len(other) == len(first)
    assert not all(np.array_equal(one, two) for one, two in zip(first, other, strict=True))


def test_batches_are_not_ordered_by_size() -> None:
    sizes = random_sizes(1)
    means = [sizes[batch].mean() for batch in shuffled_bucketed_batches(ROWS, sizes, SIZE, SEED, 0)]
    assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 3 / math.sqrt(len(means))
