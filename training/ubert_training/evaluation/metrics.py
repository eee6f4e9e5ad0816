"""Errors of predicted ratings, with bootstrap intervals over pairs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ubert_model.running.batches import batches

Errors = NDArray[np.float64]

RESAMPLES = 2000
RESAMPLES_AT_A_TIME = 16
"""All at once would fill the memory; one at a time would read all errors for each."""
LEVEL = 0.95
FEW_PAIRS = 200
"""The interval of an MSE over fewer pairs is too narrow, since the rare large errors may be missing from the sample: of
U-BERT's squared errors on Musical Instruments, those of 24, 64, 150 and 500 hold the MSE in 74, 87, 93 and 95%.
"""
HISTORY_SLICES = (("0", 0, 0), ("1–2", 1, 2), ("3–9", 3, 9), ("10+", 10, None))
"""Slices by the number of reviews in an entity's history: name, least, most."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure and its bootstrap interval at the level :data:`LEVEL`."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    @property
    def error_bar(self) -> tuple[float, float]:
        """How far the interval reaches below and above the figure."""
        return self.value - self.low, self.high - self.value

    def signed(self) -> str:
        """A difference for display, with explicit signs."""
        return f"{self.value:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


@dataclass(frozen=True, kw_only=True)
class Scores:
    """MSE in stars², RMSE and MAE in stars, over ``pairs`` pairs."""

    pairs: int
    mse: Estimate
    rmse: Estimate
    mae: Estimate


def scores(errors: Mapping[str, Errors], seed: int = 0) -> dict[str, Scores]:
    """Scores by model, from its predicted minus the true ratings, (P,) each. All models share the resamples."""
    columns = np.stack(list(errors.values()), axis=1)  # (P, models)
    squared, absolute = np.square(columns), np.abs(columns)
    resampled = _resampled_means(np.concatenate([squared, absolute], axis=1), seed)  # (RESAMPLES, 2 · models)
    mse, mae = squared.mean(axis=0).tolist(), absolute.mean(axis=0).tolist()
    return {
        name: Scores(
            pairs=len(squared),
            mse=_estimate(mse[place], resampled[:, place]),
            rmse=_estimate(math.sqrt(mse[place]), np.sqrt(resampled[:, place])),
            mae=_estimate(mae[place], resampled[:, len(errors) + place]),
        )
        for place, name in enumerate(errors)
    }


def paired_differences(errors: Errors, others: Mapping[str, Errors], seed: int = 0) -> dict[str, Estimate]:
    """MSE minus that of each other model on the same pairs (below 0: better); all share the resamples."""
    differences = np.square(errors)[:, None] - np.square(np.stack(list(others.values()), axis=1))  # (P, others)
    return dict(zip(others, bootstrap_means(differences, seed), strict=True))


def relative_change(errors: Errors, baseline_errors: Errors, seed: int = 0) -> Estimate:
    """Change of the MSE as a share of the baseline's MSE on the same pairs; both share the resamples.

    Equal errors are no change, even of an MSE of 0.
    """
    squared, baseline = np.square(errors), np.square(baseline_errors)
    mine, theirs = _resampled_means(np.stack([squared, baseline], axis=1), seed).T  # (RESAMPLES,) each
    return _estimate(float(_relative(squared.mean(), baseline.mean())), _relative(mine, theirs))


def bootstrap_means(columns: Errors, seed: int = 0) -> list[Estimate]:
    """Mean of every column with its interval; rows are pairs, and all columns share the resamples.

    Shape:
        columns: (P, M), such as squared errors of M models on the same P pairs.
    """
    means = _resampled_means(columns, seed)
    return [_estimate(float(column.mean()), means[:, index]) for index, column in enumerate(columns.T)]


def history_slices(counts: NDArray[np.float64]) -> dict[str, NDArray[np.int64]]:
    """Indices of the pairs in each slice; ``counts``: reviews in each pair's history. Empty slices are left out."""
    found = {
        name: np.flatnonzero((counts >= least) & (counts <= (np.inf if most is None else most)))
        for name, least, most in HISTORY_SLICES
    }
    return {name: index for name, index in found.items() if len(index)}


def prediction_slices(predicted: NDArray[np.float64]) -> dict[str, NDArray[np.int64]]:
    """Indices of the pairs in each tenth of the predictions, by its range in stars; fewer where many are equal.

    Ranges are shown with three decimals, or as many as tell them apart.
    """
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, 11))) if len(predicted) else np.zeros(1)
    tenth = edges[1:-1].searchsorted(predicted, side="right")
    indices = [np.flatnonzero(tenth == number) for number in np.unique(tenth)]
    ranges = [(predicted[index].min(), predicted[index].max()) for index in indices]
    shown = ([f"{low:.{digits}f}–{high:.{digits}f}" for low, high in ranges] for digits in count(3))
    names = next(names for names in shown if len(set(names)) == len(names))
    return dict(zip(names, indices, strict=True))


def _relative(mine: ArrayLike, theirs: ArrayLike) -> Errors:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.equal(mine, theirs), 0.0, np.divide(mine, theirs) - 1)


def _resampled_means(columns: Errors, seed: int) -> Errors:
    """Mean of every column in each resample of the rows, drawn by ``seed`` and P alone: (P, M) → (RESAMPLES, M)."""
    pairs = len(columns)
    rng = np.random.default_rng([seed, pairs])
    means = []
    for numbers in batches(range(RESAMPLES), RESAMPLES_AT_A_TIME):
        counts = [np.bincount(rng.integers(0, pairs, pairs), minlength=pairs) for _ in numbers]  # draws of each pair
        means.append(np.array(counts, dtype=np.float64) @ columns / pairs)
    return np.concatenate(means)


def _estimate(value: float, resampled: Errors) -> Estimate:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Estimate(value=value, low=float(low), high=float(high))
