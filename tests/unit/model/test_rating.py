"""From the network's output to a rating: bias, blend and clip."""

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubert_model.config import RatingScale
from ubert_model.errors import InputError
from ubert_model.rating.blend import BiasModel, Blend, stored_rating
from ubert_model.rating.curve import RatingCurve
from ubert_model.rating.deviations import RatingSums, SideBias
from ubert_model.rating.worth import ReviewWorth

SCALE = RatingScale()
STRAIGHT = ReviewWorth(curve=RatingCurve.of_rises(SCALE, [4.0]), surplus_weight=0.5)
BIAS = BiasModel(
    mean=4.0,
    intercept=0.1,
    user=SideBias(worth=STRAIGHT, mean=3.0, shrinkage=3.0),
    item=SideBias(worth=STRAIGHT, mean=3.0, shrinkage=5.0),
)

stars = st.floats(1, 5)
rating_lists = st.lists(stars, max_size=20)
outputs = st.floats(-20, 20)
shares = st.floats(0, 1)


def plain_sums(ratings: Sequence[float] = ()) -> RatingSums:
    """The sums of ratings whose counterparts all have a usual deviation of zero."""
    return RatingSums(count=np.array([len(ratings)]), above_usual=np.array([sum(rating - 4.0 for rating in ratings)]))


@given(users_ratings=rating_lists, items_ratings=rating_lists)
def test_the_bias_rating_is_mean_plus_intercept_plus_the_shrunk_deviations(
    users_ratings: list[float], items_ratings: list[float]
) -> None:
    rating = BIAS.rate(plain_sums(users_ratings), plain_sums(items_ratings))
    user = sum(rating - 4.0 for rating in users_ratings) / (len(users_ratings) + 3.0)
    item = sum(rating - 4.0 for rating in items_ratings) / (len(items_ratings) + 5.0)
    assert rating.shape == (1,)
    assert rating[0] == pytest.approx(4.0 + 0.1 + user + item)


def test_without_ratings_the_bias_rating_is_mean_plus_intercept() -> None:
    assert BIAS.rate(plain_sums(), plain_sums()).tolist() == pytest.approx([4.1])


def test_a_mean_given_for_each_pair_replaces_the_fitted_one() -> None:
    own = np.array([3.0, 3.5])
    user, item = plain_sums([3.0, 4.0]), plain_sums([5.0])
    expected = [replace(BIAS, mean=mean).rate(user, item).item() for mean in own]
    assert BIAS.rate(user, item, mean=own).tolist() == pytest.approx(expected)


def test_a_bias_model_survives_json() -> None:
    assert BiasModel.from_json(json.loads(json.dumps(BIAS.to_json()))) == BIAS


def blend_over(bias: float, *, weight: float, above_bias: bool) -> Blend:
    """A blend whose bias model rates every pair of strangers alike."""
    model = replace(BIAS, mean=bias, intercept=0.0)
    return Blend(bias=model, weight=weight, above_bias=above_bias, scale=SCALE)


def rated(blend: Blend, network: float, *, readable: bool = True) -> float:
    """The rating of a pair of strangers."""
    return blend.rate(plain_sums(), plain_sums(), np.array([network]), np.array([readable])).item()


@given(bias=outputs, network=outputs, weight=shares, above_bias=st.booleans())
def test_a_rating_never_leaves_its_scale(bias: float, network: float, weight: float, above_bias: bool) -> None:
    rating = rated(blend_over(bias, weight=weight, above_bias=above_bias), network)
    assert SCALE.lowest <= rating <= SCALE.highest


@given(bias=stars, network=outputs, above_bias=st.booleans())
def test_a_network_of_weight_zero_changes_nothing(bias: float, network: float, above_bias: bool) -> None:
    assert rated(blend_over(bias, weight=0.0, above_bias=above_bias), network) == bias


@given(bias=stars, network=outputs, weight=shares, above_bias=st.booleans())
def test_a_network_that_cannot_read_a_pair_changes_nothing(
    bias: float, network: float, weight: float, above_bias: bool
) -> None:
    assert rated(blend_over(bias, weight=weight, above_bias=above_bias), network, readable=False) == bias


@given(bias=stars, network=outputs, weight=shares, above_bias=st.booleans(), readable=st.booleans())
def test_a_rating_is_the_clipped_sum_of_its_shares(
    bias: float, network: float, weight: float, above_bias: bool, readable: bool
) -> None:
    blend = blend_over(bias, weight=weight, above_bias=above_bias)
    total = blend.bias_share(readable=readable) * bias + (blend.weight * network if readable else 0.0)
    clipped = min(max(total, SCALE.lowest), SCALE.highest)
    assert rated(blend, network, readable=readable) == pytest.approx(clipped)


@given(bias=stars, network=stars, weight=shares)
def test_a_networks_rating_is_averaged_with_the_bias(bias: float, network: float, weight: float) -> None:
    rating = rated(blend_over(bias, weight=weight, above_bias=False), network)
    assert rating == pytest.approx((1 - weight) * bias + weight * network)


@given(bias=st.floats(2, 4), above=st.floats(-1, 1), weight=shares)
def test_a_networks_output_above_the_bias_is_added_to_it(bias: float, above: float, weight: float) -> None:
    rating = rated(blend_over(bias, weight=weight, above_bias=True), above)
    assert rating == pytest.approx(bias + weight * above)


@pytest.mark.parametrize("rating", [1.0, 4.3, 5.0])
def test_a_stored_rating_is_rounded_to_float32_as_in_a_review_table(rating: float) -> None:
    assert stored_rating(rating, SCALE) == np.array([rating], dtype=np.float32).astype(np.float64)[0]


@pytest.mark.parametrize("rating", [0.9, 5.1, -4e168, 1e300, float("nan")])
def test_a_rating_outside_the_scale_is_refused_by_name(rating: float) -> None:
    with pytest.raises(InputError, match="is outside the scale 1:5 of the bundle"):
        stored_rating(rating, SCALE)
