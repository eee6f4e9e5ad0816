"""Padding."""

import numpy as np

from ubert_model.config import RatingScale
from ubert_model.states import ReviewEntry
from ubert_service.scoring.assembly import BatchSide


def test_each_token_carries_the_rating_of_its_review_and_padding_is_masked() -> None:
    states = {name: np.full((rows, 2), rows, dtype=np.float32) for name, rows in [("a", 1), ("b", 2), ("c", 2)]}
    reviews = {
        name: ReviewEntry(review_id=name, user="u", item="i", rating=rating, timestamp=0, tokens=len(states[name]))
        for name, rating in [("a", 1.0), ("b", 5.0), ("c", 3.0)]
    }

    side = BatchSide.of([[reviews["a"], reviews["b"]], [reviews["c"]]], states, RatingScale())

    assert side.mask.tolist() == [[True, True, True], [True, True, False]]
    assert side.offsets.tolist() == [[-1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    assert side.states[..., 0].tolist() == [[1.0, 2.0, 2.0], [2.0, 2.0, 0.0]]
    assert (side.states.dtype, side.offsets.dtype, side.mask.dtype) == (np.float32, np.float32, np.bool_)
