"""Errors of predicted ratings, with bootstrap intervals over pairs."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Errors = NDArray[np.float64]

RESAMPLES = 2000
LEVEL = 0.95
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
    def arms(self) -> tuple[float, float]:
        """How far the interval reaches below the figure and above it."""
        return self.value - self.low, self.high - self.value

    def signed(self) -> str:
        """A difference for people, its sign always shown."""
        return f"{self.value:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


@dataclass(frozen=True, kw_only=True)
class Scores:
    """MSE in stars², RMSE and MAE in stars, over ``pairs`` pairs."""

    pairs: int
    mse: Estimate
    rmse: Estimate
    mae: Estimate


def scores(errors: Errors, seed: int = 0) -> Scores:
    """Scores of predicted minus true ratings, (P,). The same seed and size resample the same pairs."""
    squared, absolute = np.square(errors), np.abs(errors)
    mse, mae = _resampled_means(np.stack([squared, absolute], axis=1), seed).T  # (RESAMPLES,) each
    return Scores(
        pairs=len(errors),
        mse=_estimate(float(squared.mean()), mse),
        rmse=_estimate(float(np.sqrt(squared.mean())), np.sqrt(mse)),
        mae=_estimate(float(absolute.mean()), mae),
    )


def paired_difference(errors: Errors, baseline_errors: Errors, seed: int = 0) -> Estimate:
    """MSE minus the baseline's MSE on the same pairs (below 0: better); pairs are resampled together."""
    difference = np.square(errors) - np.square(baseline_errors)
    return bootstrap_means(difference[:, None], seed)[0]


def relative_change(errors: Errors, baseline_errors: Errors, seed: int = 0) -> Estimate:
    """Change of the MSE as a share of the baseline's MSE on the same pairs; pairs are resampled together."""
    squared, baseline = np.square(errors), np.square(baseline_errors)
    mine, theirs = _resampled_means(np.stack([squared, baseline], axis=1), seed).T  # (RESAMPLES,) each
    return _estimate(float(squared.mean() / baseline.mean() - 1), mine / theirs - 1)


def bootstrap_means(columns: Errors, seed: int = 0) -> list[Estimate]:
    """Mean of every column with its interval; rows are pairs, and all columns are resampled together.

    Shape:
        columns: (P, M), such as squared errors of M models on the same P pairs.
    """
    means = _resampled_means(columns, seed)
    return [_estimate(float(column.mean()), means[:, index]) for index, column in enumerate(columns.T)]


def history_slices(counts: NDArray[np.float64]) -> dict[str, NDArray[np.int64]]:
    """Positions of the pairs whose entity has that many reviews to read; empty slices are left out."""
    found = {
        name: np.flatnonzero((counts >= least) & (counts <= (np.inf if most is None else most)))
        for name, least, most in HISTORY_SLICES
    }
    return {name: index for name, index in found.items() if len(index)}


def _resampled_means(columns: Errors, seed: int) -> Errors:
    """Mean of every column in each resample of the rows: (P, M) → (RESAMPLES, M)."""
    pairs = len(columns)
    rng = np.random.default_rng([seed, pairs])
    means = np.empty((RESAMPLES, columns.shape[1]))
    for number in range(RESAMPLES):  # one at a time: all of them at once would fill the memory
        drawn = np.bincount(rng.integers(0, pairs, pairs), minlength=pairs)  # how often each pair, (P,)
        means[number] = drawn @ columns / pairs
    return means


def _estimate(value: float, resampled: Errors) -> Estimate:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Estimate(value=value, low=float(low), high=float(high))
