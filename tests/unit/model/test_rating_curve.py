"""Rating curves and review worths: what a review in a history counts for."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubert_model.config import RatingScale
from ubert_model.errors import ConfigError
from ubert_model.rating.curve import RatingCurve
from ubert_model.rating.worth import ReviewWorth

SCALE = RatingScale()
CURVE = RatingCurve.of_rises(SCALE, [0.3, 0.0, 0.8, 1.2])
rises = st.lists(st.floats(0, 3), min_size=4, max_size=4)


def test_a_curve_rises_over_each_segment_by_its_given_height() -> None:
    assert [CURVE(rating) for rating in (1, 2, 3, 4, 5)] == pytest.approx([0.0, 0.3, 0.3, 1.1, 2.3])
    assert CURVE(4.5) == pytest.approx(1.7)


def test_a_curve_is_constant_beyond_the_scale() -> None:
    assert (CURVE(-7.0), CURVE(99.0)) == (CURVE(1.0), CURVE(5.0))
    raised = RatingCurve(knots=(1.0, 5.0), values=(2.0, 3.0))
    assert (raised(-7.0), raised(99.0)) == (2.0, 3.0)


@given(heights=rises, ratings=st.lists(st.floats(0, 10), min_size=1), lowest=st.floats(-3, 3), width=st.floats(1, 9))
def test_a_curve_equals_numpys_interpolation(
    heights: list[float], ratings: list[float], lowest: float, width: float
) -> None:
    curve = RatingCurve.of_rises(RatingScale(lowest=lowest, highest=lowest + width), heights)
    expected = np.interp(ratings, curve.knots, curve.values)
    assert [curve(rating) for rating in ratings] == pytest.approx(expected.tolist(), abs=1e-9)


def test_a_curve_survives_json() -> None:
    assert RatingCurve.from_json(json.loads(json.dumps(asdict(CURVE)))) == CURVE


@pytest.mark.parametrize(
    ("knots", "values", "name"),
    [
        ((1.0, 5.0), (0.0, -1.0), "values"),
        ((5.0, 1.0), (0.0, 1.0), "knots"),
        ((1.0, 1.0), (0.0, 1.0), "knots"),
        ((1.0, 2.0, 3.0), (0.0, 1.0), "values"),
        ((1.0,), (0.0,), "values"),
    ],
)
def test_a_curve_that_does_not_increase_is_refused(
    knots: tuple[float, ...], values: tuple[float, ...], name: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{name} = "):
        RatingCurve(knots=knots, values=values)


@given(
    reviews=st.lists(st.tuples(st.floats(0, 6), st.floats(-3, 3, width=32)), max_size=20),
    heights=rises,
    weight=st.floats(0, 3),
)
def test_the_worths_of_many_reviews_equal_those_of_each_bit_for_bit(
    reviews: list[tuple[float, float]], heights: list[float], weight: float
) -> None:
    worth = ReviewWorth(curve=RatingCurve.of_rises(SCALE, heights), surplus_weight=weight)
    ratings, surpluses = np.array(reviews, dtype=np.float64).reshape(-1, 2).T
    assert worth.worths(ratings, surpluses).tolist() == [worth(*review) for review in reviews]


def test_a_review_counts_for_its_rating_on_the_curve_and_its_weighted_surplus() -> None:
    assert ReviewWorth(curve=CURVE, surplus_weight=0.5)(4.0, -0.6) == pytest.approx(1.1 - 0.3)
    assert ReviewWorth(curve=CURVE)(4.0, -0.6) == CURVE(4.0)


def test_a_worth_survives_json() -> None:
    worth = ReviewWorth(curve=CURVE, surplus_weight=0.7)
    assert ReviewWorth.from_json(json.loads(json.dumps(asdict(worth)))) == worth
