"""Fitting split-conformal intervals: by bands of predictions, within buckets of the users' histories."""

import math

import numpy as np

from ubert_model.config import RatingScale
from ubert_model.rating import Floats
from ubert_model.rating.intervals import HISTORY_BUCKETS, Margins, RatingIntervals, history_buckets

COVERAGE = 0.9
LEAST_PAIRS = 200
"""Least number of validation pairs in a band of predictions, if there are so many at all."""
MOST_BANDS = 5
"""In a narrow band a bound falls on the same side of a whole number of stars for all pairs, and so holds far too many
ratings or too few.
"""
_MISSED_BELOW = (0.5, 1.0, 0.0)
"""Shares of the misses that may fall below an interval, the others above. Near an end of the scale the tail on that
side cannot miss, and giving it a share would only widen the interval on the other.
"""


def fit_intervals(
    predicted: Floats, truth: Floats, user_counts: Floats, scale: RatingScale, coverage: float = COVERAGE
) -> RatingIntervals:
    """Calibrate on pairs that nothing was trained on, (P,) each; ``predicted`` and ``truth`` in stars.

    A bucket with fewer pairs than two bands need shares the margins of all pairs: intervals depend on the prediction
    more than on the history. Without pairs an interval is the whole scale.
    """
    bucket = history_buckets(user_counts)
    overall = _margins(predicted, truth, scale, coverage)
    margins = tuple(
        _margins(predicted[mine], truth[mine], scale, coverage) if mine.sum() >= 2 * LEAST_PAIRS else overall
        for mine in (bucket == number for number in range(len(HISTORY_BUCKETS)))
    )
    return RatingIntervals(coverage=coverage, margins=margins)


def _margins(predicted: Floats, truth: Floats, scale: RatingScale, coverage: float) -> Margins:
    """By bands of equally many pairs with neighbouring predictions."""
    if not len(predicted):
        whole = scale.highest - scale.lowest
        return Margins(predicted=(scale.lowest,), below=(whole,), above=(whole,))
    count = min(MOST_BANDS, max(1, len(predicted) // LEAST_PAIRS))
    band = _band_edges(predicted, count).searchsorted(predicted, side="right")
    bands = [band == number for number in np.unique(band)]
    bounds = [_band_margins(predicted[mine], truth[mine], scale, coverage) for mine in bands]
    return Margins(
        predicted=tuple(float(predicted[mine].mean()) for mine in bands),
        below=tuple(below for below, _ in bounds),
        above=tuple(above for _, above in bounds),
    )


def _band_edges(predicted: Floats, count: int) -> Floats:
    """Least prediction of each band but the first, ascending: quantiles, without those that equal predictions bring too
    close to another for :data:`LEAST_PAIRS` to lie between them.
    """
    quantiles = np.quantile(predicted, np.arange(1, count) / count)
    edges, below = [], 0
    for edge, pairs in zip(quantiles, np.sort(predicted).searchsorted(quantiles), strict=True):
        if pairs - below >= LEAST_PAIRS and len(predicted) - pairs >= LEAST_PAIRS:
            edges.append(edge)
            below = pairs
    return np.array(edges)


def _band_margins(predicted: Floats, truth: Floats, scale: RatingScale, coverage: float) -> tuple[float, float]:
    """Below and above, with the misses shared between the tails so that intervals are the narrowest."""
    residuals = truth - predicted
    whole = scale.highest - scale.lowest

    def margins(missed_below: float) -> tuple[float, float]:
        below = _tail(-residuals, (1 - coverage) * missed_below)
        above = _tail(residuals, (1 - coverage) * (1 - missed_below))
        return min(below, whole), min(above, whole)

    def width(sides: tuple[float, float]) -> float:
        below, above = (max(side, 0.0) for side in sides)
        high = np.minimum(predicted + above, scale.highest)
        low = np.maximum(predicted - below, scale.lowest)
        return float((high - low).sum())

    return min((margins(missed_below) for missed_below in _MISSED_BELOW), key=width)


def _tail(scores: Floats, missed: float) -> float:
    """The bound that one further score exceeds with probability ``missed`` at most.

    That is the ⌈(n + 1)(1 − missed)⌉-th smallest of n exchangeable scores; beyond the largest there is no bound.
    """
    rank = math.ceil(round((len(scores) + 1) * (1 - missed), 9))
    return math.inf if rank > len(scores) else float(np.sort(scores)[rank - 1])
