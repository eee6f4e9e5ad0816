"""Fitting intervals on pairs of predictions and ratings."""

import json

import numpy as np
import pytest

from ubert_model.config import RatingScale
from ubert_model.rating.intervals import RatingIntervals
from ubert_training.finetuning.interval_fit import LEAST_PAIRS, fit_intervals

SCALE = RatingScale()
WIDE = RatingScale(lowest=-100, highest=100)


def _pairs(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions in stars, truths that scatter less near the top of the scale, and user counts."""
    random = np.random.default_rng(seed)
    predicted = random.uniform(2, 5, count)
    truth = predicted + random.normal(0, np.sqrt(0.2 + 0.5 * (5 - predicted)))
    return predicted, truth, random.choice([0.0, 1.0, 5.0, 20.0], count)


def test_ninety_percent_intervals_hold_ninety_percent_of_unseen_ratings() -> None:
    intervals = fit_intervals(*_pairs(4000, seed=0), WIDE)
    predicted, truth, counts = _pairs(20000, seed=1)
    low, high = intervals.around(predicted, counts, WIDE)
    covered = (low <= truth) & (truth <= high)
    assert covered.mean() == pytest.approx(0.9, abs=0.015)
    for bucket in (0.0, 1.0, 5.0, 20.0):
        assert covered[counts == bucket].mean() == pytest.approx(0.9, abs=0.04)
    for centre in (2.25, 3.5, 4.75):
        assert covered[np.abs(predicted - centre) < 0.25].mean() == pytest.approx(0.9, abs=0.04)


def test_tails_share_the_misses_so_that_intervals_on_a_bounded_scale_are_the_narrowest() -> None:
    """Of five stars, the commonest rating, no bound above is missed from there: it must not be for low predictions."""
    random = np.random.default_rng(0)
    predicted = random.uniform(3.5, 5, 8000)
    truth = np.clip(np.round(predicted + random.normal(0.3, 1.0, 8000)), 1, 5)
    fitted, unseen = slice(0, 4000), slice(4000, None)
    intervals = fit_intervals(predicted[fitted], truth[fitted], np.full(4000, 5.0), SCALE)
    low, high = intervals.around(predicted[unseen], np.full(4000, 5), SCALE)
    covered = (low <= truth[unseen]) & (truth[unseen] <= high)
    assert covered.mean() == pytest.approx(0.9, abs=0.015)
    fifths = np.argsort(predicted[unseen]).reshape(5, -1)
    assert covered[fifths].mean(axis=1) == pytest.approx(np.full(5, 0.9), abs=0.05)
    assert (high == 5).all()


def test_where_any_rating_above_is_common_the_misses_are_below_and_the_reverse() -> None:
    """With the ratings mirrored within the scale the intervals are, too."""
    random = np.random.default_rng(0)
    predicted = random.uniform(1, 5, 4000)
    truth = np.clip(predicted + random.normal(0, 1.0, 4000), 1, 5)
    counts, asked = np.full(4000, 5.0), np.linspace(1, 5, 9)
    low, high = fit_intervals(predicted, truth, counts, SCALE).around(asked, np.full(9, 5), SCALE)
    mirrored = fit_intervals(6 - predicted, 6 - truth, counts, SCALE).around(6 - asked, np.full(9, 5), SCALE)
    np.testing.assert_allclose(6 - mirrored[1], low, atol=0.1)
    np.testing.assert_allclose(6 - mirrored[0], high, atol=0.1)


def test_each_tail_misses_five_percent_of_unseen_ratings() -> None:
    intervals = fit_intervals(*_pairs(4000, seed=0), WIDE)
    predicted, truth, counts = _pairs(20000, seed=1)
    low, high = intervals.around(predicted, counts, WIDE)
    assert (truth < low).mean() == pytest.approx(0.05, abs=0.01)
    assert (truth > high).mean() == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize(("pairs", "exceeded_by"), [(8, None), (19, 0), (38, 0), (39, 1), (199, 9)])
def test_a_bound_is_the_conformal_quantile_of_the_residuals(pairs: int, exceeded_by: int | None) -> None:
    """``exceeded_by``: how many of the pairs lie beyond the bound; None: with so few pairs there is no bound."""
    above, below = np.arange(1.0, pairs + 1), -0.1 * np.arange(1.0, pairs + 1)
    predicted, counts = np.full(pairs, 3.0), np.zeros(pairs)
    far = RatingScale(lowest=-1000, highest=1000)
    for residuals in (above, below):
        low, high = fit_intervals(predicted, predicted + residuals, counts, far).around([3.0], [0], far)
        if exceeded_by is None:
            assert (low[0], high[0]) == (far.lowest, far.highest)
        elif residuals is above:
            assert high[0] == pytest.approx(3.0 + above[-1 - exceeded_by])
        else:
            assert low[0] == pytest.approx(3.0 + below[-1 - exceeded_by])


@pytest.mark.parametrize("pairs", [9, 18])
def test_pairs_too_few_for_two_bounds_give_one(pairs: int) -> None:
    """All misses have to be on its side."""
    low, high = fit_intervals(np.full(pairs, 3.0), 3.0 + np.linspace(-0.5, 0.5, pairs), np.zeros(pairs), SCALE).around(
        [3.0], [0], SCALE
    )
    assert sorted([3.0 - low[0], high[0] - 3.0]) == pytest.approx([0.5, 2.0])


def test_a_surer_prediction_has_a_narrower_interval() -> None:
    intervals = fit_intervals(*_pairs(4000, seed=0), WIDE)
    low, high = intervals.around([2.5, 4.8], [5, 5], WIDE)
    assert high[1] - low[1] < high[0] - low[0]


@pytest.mark.parametrize("factor", [0.01, 0.25, 25.0])
def test_intervals_are_proportional_to_the_rating_scale(factor: float) -> None:
    predicted, truth, counts = _pairs(4000, seed=0)
    asked = np.linspace(-20, 20, 9)
    bounds = fit_intervals(predicted, truth, counts, WIDE).around(asked, 5, WIDE)
    scale = RatingScale(lowest=factor * WIDE.lowest, highest=factor * WIDE.highest)
    scaled = fit_intervals(factor * predicted, factor * truth, counts, scale)
    for bound, other in zip(bounds, scaled.around(factor * asked, 5, scale), strict=True):
        np.testing.assert_allclose(other, factor * bound, rtol=1e-9)


def test_exact_predictions_have_intervals_of_zero_width() -> None:
    predicted, _, counts = _pairs(500, seed=0)
    low, high = fit_intervals(predicted, predicted, counts, WIDE).around(predicted, counts, WIDE)
    np.testing.assert_array_equal(low, predicted)
    np.testing.assert_array_equal(high, predicted)


def test_an_interval_holds_its_prediction_and_stays_within_the_scale() -> None:
    predicted, truth, counts = _pairs(500, seed=2)
    intervals = fit_intervals(predicted, truth + 3, counts, WIDE)  # every residual is positive
    low, high = intervals.around(np.clip(predicted, 1, 5), counts, SCALE)
    assert (low <= np.clip(predicted, 1, 5)).all()
    assert (high >= np.clip(predicted, 1, 5)).all()
    assert low.min() >= SCALE.lowest
    assert high.max() <= SCALE.highest


@pytest.mark.parametrize(("pairs", "shares"), [(2 * LEAST_PAIRS - 1, True), (2 * LEAST_PAIRS, False)])
def test_a_bucket_too_small_for_two_bands_shares_the_margins_of_all(pairs: int, *, shares: bool) -> None:
    predicted, truth, _ = _pairs(1000, seed=3)
    counts = np.full(1000, 5.0)
    counts[:pairs] = 0.0
    intervals = fit_intervals(predicted, truth, counts, WIDE)
    few, absent, many, also_absent = intervals.margins
    assert absent == also_absent != many
    assert (few == absent) == shares
    assert [len(margins.predicted) for margins in (absent, many)] == [5, (1000 - pairs) // LEAST_PAIRS]


def test_equal_predictions_share_a_band() -> None:
    predicted = np.concatenate([np.full(700, 3.0), np.linspace(4.0, 5.0, 300)])
    truth = predicted + np.resize([-1.0, 0.0, 1.0], 1000)
    margins = fit_intervals(predicted, truth, np.full(1000, 5.0), WIDE).margins[2]
    assert len(margins.predicted) == 2
    assert margins.predicted[0] < 3.2
    assert margins.below == margins.above == (1.0, 1.0)


def test_a_few_pairs_beside_many_equal_predictions_are_no_band_of_their_own() -> None:
    # The second of the four quantiles falls on the equal predictions, the first ten pairs below.
    groups = [np.linspace(1.0, 2.0, 210), np.full(590, 3.0), np.linspace(4.0, 5.0, 200)]
    predicted = np.concatenate(groups)
    truth = predicted + np.resize([-1.0, 0.0, 1.0], 1000)
    margins = fit_intervals(predicted, truth, np.full(1000, 5.0), WIDE).margins[2]
    assert len(margins.predicted) == 3
    assert [*margins.below, *margins.above] == pytest.approx([1.0] * 6)


def test_without_validation_pairs_an_interval_is_the_whole_scale() -> None:
    nothing = np.zeros(0)
    intervals = fit_intervals(nothing, nothing, nothing, SCALE)
    low, high = intervals.around([4.0], [3], SCALE)
    assert (low[0], high[0]) == (SCALE.lowest, SCALE.highest)


@pytest.mark.parametrize("pairs", [0, 10, 1000])
def test_fitted_intervals_survive_json(pairs: int) -> None:
    intervals = fit_intervals(*_pairs(pairs, seed=4), WIDE)
    assert RatingIntervals.from_json(json.loads(json.dumps(intervals.to_json(), allow_nan=False))) == intervals
