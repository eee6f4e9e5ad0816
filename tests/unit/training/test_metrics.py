"""Scores, their bootstrap intervals, and slices by length of history."""

import tracemalloc

import numpy as np
import pytest

from ubert_training.evaluation.evaluate import BIAS_NAME, MODEL_NAME, Coverage, Evaluation, history_table
from ubert_training.evaluation.metrics import (
    FEW_PAIRS,
    RESAMPLES,
    Estimate,
    bootstrap_means,
    history_slices,
    paired_differences,
    prediction_slices,
    relative_change,
    scores,
)


def test_scores_are_the_mse_rmse_and_mae_of_all_pairs() -> None:
    found = scores({"model": np.array([1.0, -1.0, 2.0, 0.0])})["model"]
    assert found.pairs == 4
    assert found.mse.value == pytest.approx(1.5)
    assert found.rmse.value == pytest.approx(1.5**0.5)
    assert found.mae.value == pytest.approx(1.0)


def test_a_difference_is_shown_with_the_sign_of_every_number() -> None:
    assert Estimate(value=0.01, low=-0.02, high=0.03).signed() == "+0.0100 [-0.0200, +0.0300]"


def test_intervals_cover_the_true_error_in_about_95_percent_of_the_trials() -> None:
    rng = np.random.default_rng(0)
    covered = [
        (estimate := scores({"model": rng.normal(0, 1, 200)}, trial)["model"].mse).low <= 1.0 <= estimate.high
        for trial in range(200)
    ]
    assert 0.88 <= np.mean(covered) <= 0.99


@pytest.mark.parametrize("pairs", [FEW_PAIRS // 8, FEW_PAIRS])
def test_intervals_that_miss_rare_large_errors_are_marked_as_too_narrow(pairs: int) -> None:
    """One error in fifty is of 4 stars, as where most ratings are 5."""
    rng = np.random.default_rng(0)
    errors = np.where(rng.random((20, pairs)) < 0.02, 4.0, rng.normal(0, 0.5, (20, pairs)))
    expected = 0.02 * 16 + 0.98 * 0.25
    intervals = [scores({"model": sample}, trial)["model"].mse for trial, sample in enumerate(errors)]
    covered = np.mean([interval.low <= expected <= interval.high for interval in intervals])
    slices = {"3–9": scores({MODEL_NAME: errors[0], BIAS_NAME: errors[1]})}
    evaluation = Evaluation(
        run="",
        scores=slices["3–9"],
        settings={BIAS_NAME: {}},
        by_user_history=slices,
        by_item_history=slices,
        differences={},
        coverage=Coverage(
            promised=0.9, overall=0.9, by_user_history={}, by_item_history={}, by_prediction={}, width=1.5
        ),
    )
    caption = history_table(evaluation, "user", slices).caption
    assert (covered < 0.8) == (caption is not None), covered


def test_a_paired_difference_cancels_what_both_models_share() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 1, 500)
    baseline = shared + rng.normal(0, 0.01, 500) + 0.05
    difference = paired_differences(shared, {"baseline": baseline})["baseline"]
    found = scores({"model": shared, "baseline": baseline})
    mse = found["model"].mse
    assert difference.value == pytest.approx(mse.value - found["baseline"].mse.value)
    assert difference.high - difference.low < (mse.high - mse.low) / 5


def test_a_relative_change_is_a_share_of_the_baselines_mse() -> None:
    errors = np.random.default_rng(0).normal(0, 1, 500)
    change = relative_change(1.1 * errors, errors)
    assert change.value == pytest.approx(0.21)
    assert (change.low, change.high) == pytest.approx((0.21, 0.21))
    for same in (errors, np.zeros(3)):
        assert relative_change(same, same) == Estimate(value=0.0, low=0.0, high=0.0)


def test_every_interval_uses_the_resamples_drawn_by_seed_and_number_of_pairs() -> None:
    rng = np.random.default_rng(0)
    errors, baseline = rng.normal(0, 1, 300), rng.normal(0, 1.1, 300)
    drawn = np.random.default_rng([3, 300]).integers(0, 300, (RESAMPLES, 300))
    squared, other = np.square(errors)[drawn].mean(axis=1), np.square(baseline)[drawn].mean(axis=1)
    found = scores({"baseline": baseline, "model": errors}, seed=3)["model"]
    assert bounds(found.mse) == pytest.approx(np.quantile(squared, [0.025, 0.975]))
    assert bounds(found.rmse) == pytest.approx(np.quantile(np.sqrt(squared), [0.025, 0.975]))
    assert bounds(found.mae) == pytest.approx(np.quantile(np.abs(errors)[drawn].mean(axis=1), [0.025, 0.975]))
    difference = paired_differences(errors, {"itself": errors, "baseline": baseline}, seed=3)["baseline"]
    assert bounds(difference) == pytest.approx(np.quantile(squared - other, [0.025, 0.975]))
    assert bounds(relative_change(errors, baseline, seed=3)) == pytest.approx(
        np.quantile(squared / other - 1, [0.025, 0.975])
    )
    (direct,) = bootstrap_means((np.square(errors) - np.square(baseline))[:, None], seed=3)
    assert bounds(direct) == pytest.approx(bounds(difference))


def bounds(estimate: Estimate) -> list[float]:
    return [estimate.low, estimate.high]


def test_memory_grows_with_the_pairs_and_not_with_the_resamples() -> None:
    errors = np.random.default_rng(0).normal(0, 1, 4000)
    tracemalloc.start()
    scores({"model": errors})
    paired_differences(errors, {"baseline": 2 * errors})
    relative_change(errors, 2 * errors)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 * errors.nbytes < RESAMPLES * errors.nbytes


def test_history_slices_hold_every_pair_once() -> None:
    counts = np.array([0, 1, 2, 3, 9, 10, 500], dtype=np.float64)
    found = history_slices(counts)
    assert {name: index.tolist() for name, index in found.items()} == {
        "0": [0],
        "1–2": [1, 2],
        "3–9": [3, 4],
        "10+": [5, 6],
    }
    assert list(history_slices(np.array([4.0]))) == ["3–9"]


@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e-12, 0.0])
def test_prediction_slices_hold_every_pair_once(spread: float) -> None:
    """Also where three decimals do not tell the tenths apart."""
    predicted = 4.1234 + spread * np.random.default_rng(0).normal(size=1_000)
    found = prediction_slices(predicted)
    assert sorted(np.concatenate(list(found.values())).tolist()) == list(range(1_000))
    assert len(found) == (10 if spread else 1)
