"""How far a predicted rating may be off: split-conformal intervals by the prediction and the user's history.

Numpy only: training fits them on validation pairs, the service gives one with every prediction.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ubert_model.config import RatingScale
from ubert_model.rating.blend import Ratings
from ubert_model.validation import require

COVERAGE = 0.9
LEAST_PAIRS = 200
"""Least number of validation pairs in a band of predictions, if there are so many at all."""
MOST_BANDS = 5
"""In a narrow band a bound falls on the same side of a whole number of stars for all pairs, and so holds far too many
ratings or too few.
"""
HISTORY_BUCKETS = (0, 1, 3, 10)
"""Least number of the user's reviews in each bucket."""
_BUCKET_STARTS = np.array(HISTORY_BUCKETS[1:])
_MISSED_BELOW = (0.5, 1.0, 0.0)
"""Shares of the misses that may fall below an interval, the others above. Near an end of the scale the tail on that
side cannot miss, and giving it a share would only widen the interval on the other.
"""


@dataclass(frozen=True, kw_only=True)
class Margins:
    """How far an interval reaches below and above its prediction, in stars: by band of predictions, each given by its
    mean, ascending; between two of these linear, beyond the outermost constant.
    """

    predicted: tuple[float, ...]
    below: tuple[float, ...]
    above: tuple[float, ...]

    def __post_init__(self) -> None:
        bands = len(self.predicted)
        require(bands > 0, "predicted", self.predicted, "give one band or more")
        for name in ("below", "above"):
            require(len(getattr(self, name)) == bands, name, getattr(self, name), f"give one for each of {bands} bands")

    def around(self, predicted: Ratings) -> tuple[Ratings, Ratings]:
        """Lower and upper bounds in stars, (B,) each. They hold the prediction, even if all residuals of its band had
        one sign.
        """
        low = predicted - np.interp(predicted, self.predicted, self.below)
        high = predicted + np.interp(predicted, self.predicted, self.above)
        return np.minimum(low, predicted), np.maximum(high, predicted)


@dataclass(frozen=True, kw_only=True)
class RatingIntervals:
    """Intervals that hold the rating with probability ``coverage``, if new pairs are like the validation pairs.

    ``margins`` are by bucket of :data:`HISTORY_BUCKETS`.
    """

    coverage: float
    margins: tuple[Margins, ...]

    def __post_init__(self) -> None:
        require(0 < self.coverage < 1, "coverage", self.coverage, "use a probability between 0 and 1")
        buckets = len(HISTORY_BUCKETS)
        require(len(self.margins) == buckets, "margins", len(self.margins), f"give one for each of {buckets} buckets")

    def around(self, ratings: ArrayLike, user_counts: ArrayLike, scale: RatingScale) -> tuple[Ratings, Ratings]:
        """Lower and upper bounds in stars, cut to the scale, (B,) each.

        Shape:
            ratings: predictions in stars, (B,); user_counts: reviews of each user that the prediction may use, (B,).
        """
        predicted = np.asarray(ratings, dtype=np.float64)
        bucket = np.broadcast_to(_buckets(user_counts), predicted.shape)
        bounds = np.empty((2, *predicted.shape))
        for number in np.unique(bucket).tolist():
            mine = bucket == number
            bounds[:, mine] = self.margins[number].around(predicted[mine])
        low, high = np.clip(bounds, scale.lowest, scale.highest)
        return low, high

    @classmethod
    def fit(
        cls,
        predicted: Ratings,
        truth: Ratings,
        user_counts: NDArray[np.float64],
        scale: RatingScale,
        coverage: float = COVERAGE,
    ) -> Self:
        """Calibrate on pairs that nothing was trained on, (P,) each; ``predicted`` and ``truth`` in stars.

        A bucket with fewer pairs than two bands need shares the margins of all pairs: intervals depend on the
        prediction more than on the history. Without pairs an interval is the whole scale.
        """
        bucket = _buckets(user_counts)
        overall = _margins(predicted, truth, scale, coverage)
        margins = tuple(
            _margins(predicted[mine], truth[mine], scale, coverage) if mine.sum() >= 2 * LEAST_PAIRS else overall
            for mine in (bucket == number for number in range(len(HISTORY_BUCKETS)))
        )
        return cls(coverage=coverage, margins=margins)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the manifest."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_json`."""
        margins = (Margins(**{name: tuple(column) for name, column in entry.items()}) for entry in values["margins"])
        return cls(**{**values, "margins": tuple(margins)})


def _buckets(user_counts: ArrayLike) -> NDArray[np.intp]:
    return _BUCKET_STARTS.searchsorted(np.asarray(user_counts), side="right")


def _margins(predicted: Ratings, truth: Ratings, scale: RatingScale, coverage: float) -> Margins:
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


def _band_edges(predicted: Ratings, count: int) -> Ratings:
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


def _band_margins(predicted: Ratings, truth: Ratings, scale: RatingScale, coverage: float) -> tuple[float, float]:
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


def _tail(scores: NDArray[np.float64], missed: float) -> float:
    """The bound that one further score exceeds with probability ``missed`` at most.

    That is the ⌈(n + 1)(1 − missed)⌉-th smallest of n exchangeable scores; beyond the largest there is no bound.
    """
    rank = math.ceil(round((len(scores) + 1) * (1 - missed), 9))
    return math.inf if rank > len(scores) else float(np.sort(scores)[rank - 1])
