"""Scores, intervals and slices."""

import numpy as np
import pytest

from ubert_training.evaluation.metrics import history_slices, paired_difference, scores


def test_scores_are_what_their_names_say() -> None:
    found = scores(np.array([1.0, -1.0, 2.0, 0.0]))
    assert found.pairs == 4
    assert found.mse.value == pytest.approx(1.5)
    assert found.rmse.value == pytest.approx(1.5**0.5)
    assert found.mae.value == pytest.approx(1.0)


def test_the_interval_covers_the_true_error_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = [
        (estimate := scores(rng.normal(0, 1, 200), seed=trial).mse).low <= 1.0 <= estimate.high for trial in range(200)
    ]
    assert 0.88 <= np.mean(covered) <= 0.99


def test_a_paired_difference_cancels_what_both_models_share() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 1, 500)
    baseline = shared + rng.normal(0, 0.01, 500) + 0.05
    difference = paired_difference(shared, baseline)
    assert difference.value == pytest.approx(scores(shared).mse.value - scores(baseline).mse.value)
    spread = scores(shared).mse.high - scores(shared).mse.low
    assert difference.high - difference.low < spread / 5


def test_slices_hold_every_pair_once() -> None:
    counts = np.array([0, 1, 2, 3, 9, 10, 500], dtype=np.float64)
    found = history_slices(counts)
    assert {name: index.tolist() for name, index in found.items()} == {
        "0": [0],
        "1–2": [1, 2],
        "3–9": [3, 4],
        "10+": [5, 6],
    }
    assert list(history_slices(np.array([4.0]))) == ["3–9"]
