"""Rows in batches: each once, of like size, drawn anew in every epoch and the same for the same epoch."""

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


def drawn_sizes(dimensions: int) -> Indices:
    """Sizes as histories have them: most are short, a few long."""
    return np.random.default_rng(SEED).geometric(0.05, size=(ROWS[-1] + 1, dimensions))


def padded_size(batches: list[Indices], sizes: Indices) -> int:
    return sum(len(batch) * int(np.prod(sizes[batch].max(axis=0))) for batch in batches)


@pytest.mark.parametrize("dimensions", [1, 2])
@pytest.mark.parametrize("count", [0, 1, SIZE, 100, len(ROWS)])
def test_every_row_is_in_one_batch(dimensions: int, count: int) -> None:
    sizes = drawn_sizes(dimensions)
    for batches in (
        bucketed_batches(ROWS[:count], sizes, SIZE),
        shuffled_bucketed_batches(ROWS[:count], sizes, SIZE, SEED, 0),
    ):
        assert sorted(row for batch in batches for row in batch.tolist()) == ROWS[:count].tolist()
        assert all(0 < len(batch) <= SIZE for batch in batches)


@pytest.mark.parametrize(("dimensions", "saved"), [(1, 0.5), (2, 0.7)])
def test_like_sizes_save_most_of_the_padding(dimensions: int, saved: float) -> None:
    sizes = drawn_sizes(dimensions)
    needed = int(np.prod(sizes[ROWS], axis=1).sum())
    mixed = padded_size(shuffled_batches(ROWS, SIZE, SEED, 0), sizes) - needed
    alike = padded_size(shuffled_bucketed_batches(ROWS, sizes, SIZE, SEED, 0), sizes) - needed
    assert alike < (1 - saved) * mixed


def test_an_epoch_can_be_drawn_again_and_another_is_different() -> None:
    sizes = drawn_sizes(2)
    first, again, other = (shuffled_bucketed_batches(ROWS, sizes, SIZE, SEED, epoch) for epoch in (0, 0, 1))
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert len(other) == len(first)
    assert not all(np.array_equal(one, two) for one, two in zip(first, other, strict=True))


def test_batches_are_not_in_order_of_size() -> None:
    sizes = drawn_sizes(1)
    means = [sizes[batch].mean() for batch in shuffled_bucketed_batches(ROWS, sizes, SIZE, SEED, 0)]
    assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 3 / math.sqrt(len(means))
