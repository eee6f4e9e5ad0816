"""Batches of like length, and padding."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ubert_model.config import RatingScale
from ubert_model.states import ReviewEntry
from ubert_service.assembly import length_batches, pad_side

LENGTHS = st.lists(st.integers(1, 300), max_size=200)


@given(lengths=LENGTHS, shared=st.integers(1, 300), budget=st.integers(1, 5_000))
def test_every_candidate_is_in_one_batch_and_no_batch_is_over_budget(
    lengths: list[int], shared: int, budget: int
) -> None:
    batches = list(length_batches(lengths, shared=shared, budget=budget))
    assert sorted(position for batch in batches for position in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[position] for position in batch)
        assert len(batch) == 1 or len(batch) * (longest + shared) <= budget


@given(lengths=LENGTHS, shared=st.integers(1, 300), budget=st.integers(1, 5_000))
def test_no_batch_pads_a_candidate_to_a_length_that_another_batch_undercuts(
    lengths: list[int], shared: int, budget: int
) -> None:
    batches = list(length_batches(lengths, shared=shared, budget=budget))
    for shorter, longer in pairwise(batches):
        assert max(lengths[one] for one in shorter) <= min(lengths[one] for one in longer)


def test_each_token_carries_the_rating_of_its_review_and_padding_is_masked() -> None:
    states = {name: np.full((rows, 2), rows, dtype=np.float32) for name, rows in [("a", 1), ("b", 2), ("c", 2)]}
    reviews = {
        name: ReviewEntry(review_id=name, user="u", item="i", rating=rating, timestamp=0, tokens=len(states[name]))
        for name, rating in [("a", 1.0), ("b", 5.0), ("c", 3.0)]
    }

    side = pad_side([[reviews["a"], reviews["b"]], [reviews["c"]]], states, RatingScale())

    assert side.mask.tolist() == [[True, True, True], [True, True, False]]
    assert side.offsets.tolist() == [[-1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    assert side.states[..., 0].tolist() == [[1.0, 2.0, 2.0], [2.0, 2.0, 0.0]]
    assert (side.states.dtype, side.offsets.dtype, side.mask.dtype) == (np.float32, np.float32, np.bool_)
