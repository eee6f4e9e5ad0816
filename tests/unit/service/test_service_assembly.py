"""One side of a batch: ragged reviews as padded arrays."""

import numpy as np

from ubert_model.review import ReviewEntry
from ubert_service.scoring.assembly import BatchSide


def test_each_row_has_the_residual_of_its_review_and_padding_is_masked() -> None:
    states = {name: np.full((rows, 2), rows, dtype=np.float32) for name, rows in [("a", 1), ("b", 2), ("c", 2)]}
    reviews = {
        name: ReviewEntry(review_id=name, user="u", item="i", rating=rating, timestamp=0, rows=len(states[name]))
        for name, rating in [("a", 1.0), ("b", 5.0), ("c", 3.0)]
    }

    residuals = [np.array(of_reviews, dtype=np.float32) for of_reviews in ([-1.0, 1.5], [0.25])]
    side = BatchSide.of([[reviews["a"], reviews["b"]], [reviews["c"]]], residuals, states)

    assert side.mask.tolist() == [[True, True, True], [True, True, False]]
    assert side.residuals.tolist() == [[-1.0, 1.5, 1.5], [0.25, 0.25, 0.0]]
    assert side.states[..., 0].tolist() == [[1.0, 2.0, 2.0], [2.0, 2.0, 0.0]]
    assert (side.states.dtype.name, side.residuals.dtype.name, side.mask.dtype.name) == ("float32", "float32", "bool")
