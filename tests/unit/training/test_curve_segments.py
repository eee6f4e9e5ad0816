"""The basis in which rating curves are fitted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubert_model.config import RatingScale
from ubert_model.rating.curve import RatingCurve
from ubert_training.finetuning.curve_segments import SEGMENTS, curve_segments

SCALE = RatingScale()


@given(heights=st.lists(st.floats(0, 3), min_size=SEGMENTS, max_size=SEGMENTS), rating=st.floats(1, 5))
def test_a_curve_is_the_weighted_sum_of_its_segments(heights: list[float], rating: float) -> None:
    parts = [height * segment(rating) for height, segment in zip(heights, curve_segments(SCALE), strict=True)]
    assert RatingCurve.of_rises(SCALE, heights)(rating) == pytest.approx(sum(parts))
