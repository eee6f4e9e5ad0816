"""How far a predicted rating may be off: split-conformal intervals by the length of the user's history.

Numpy only: training fits them on validation pairs, the service gives one with every prediction.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ubert_model.config import RatingScale, require
from ubert_model.rating.blend import Ratings

COVERAGE = 0.9
LEAST_PAIRS = 200
"""A bucket with fewer validation pairs than this shares the margins of all pairs."""
_LEAST_VARIANCE = 1 / 15
"""Floor of a variance, as a share of the mean one: the fitted line may fall below, but no user is that predictable."""
HISTORY_BUCKETS = (0, 1, 3, 10)
"""Least number of the user's reviews in each bucket."""
_BUCKET_STARTS = np.array(HISTORY_BUCKETS[1:])


@dataclass(frozen=True, kw_only=True)
class Margins:
    """How far an interval reaches below and above its prediction, in units of the expected deviation."""

    below: float
    above: float


@dataclass(frozen=True, kw_only=True)
class RatingIntervals:
    """Intervals that hold the rating with probability ``coverage``, if new pairs are like the validation pairs.

    The expected deviation of a prediction follows from the prediction itself (ratings near the top of the scale
    are surer than those in its middle): its square is ``variance + variance_slope · (prediction − centre)``, in
    stars². Margins are by bucket of :data:`HISTORY_BUCKETS`.
    """

    coverage: float
    centre: float
    variance: float
    variance_slope: float
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
        bucket, deviation = _buckets(user_counts), self._deviation(predicted)
        below, above = self._margins_by_bucket
        low = np.maximum(predicted - below[bucket] * deviation, scale.lowest)
        high = np.minimum(predicted + above[bucket] * deviation, scale.highest)
        # A margin may be negative (all residuals of one sign), but the interval still holds its prediction.
        return np.minimum(low, predicted), np.maximum(high, predicted)

    @cached_property
    def _margins_by_bucket(self) -> NDArray[np.float64]:
        """Margins below and above, (2, buckets)."""
        return np.array([(margin.below, margin.above) for margin in self.margins]).T

    @classmethod
    def fit(
        cls, predicted: Ratings, truth: Ratings, user_counts: NDArray[np.float64], coverage: float = COVERAGE
    ) -> Self:
        """Calibrate on pairs that nothing was trained on, (P,) each; ``predicted`` and ``truth`` in stars.

        Each tail gets half of what the coverage leaves, so each bound holds by itself. Without pairs the margins are
        infinite, and an interval is the whole scale.
        """
        if not len(predicted):
            margins = (Margins(below=math.inf, above=math.inf),) * len(HISTORY_BUCKETS)
            return cls(coverage=coverage, centre=0.0, variance=1.0, variance_slope=0.0, margins=margins)
        residuals = truth - predicted
        centre = float(predicted.mean())
        spread = float(np.square(predicted - centre).mean())
        slope = float(((predicted - centre) * np.square(residuals)).mean()) / spread if spread > 0 else 0.0
        variance = float(np.square(residuals).mean())
        unscaled = cls(
            coverage=coverage,
            centre=centre,
            variance=variance,
            variance_slope=slope,
            margins=(Margins(below=0.0, above=0.0),) * len(HISTORY_BUCKETS),
        )
        scores = residuals / unscaled._deviation(predicted)
        bucket = _buckets(user_counts)
        overall = _margins(scores, coverage)
        margins = tuple(
            _margins(scores[bucket == number], coverage) if (bucket == number).sum() >= LEAST_PAIRS else overall
            for number in range(len(HISTORY_BUCKETS))
        )
        return replace(unscaled, margins=margins)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the manifest; an infinite margin is null."""
        margins: Sequence[Margins] = self.margins
        return {
            **asdict(self),
            "margins": [
                {side: value if math.isfinite(value) else None for side, value in asdict(margin).items()}
                for margin in margins
            ],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_json`."""
        margins = tuple(
            Margins(**{side: math.inf if value is None else value for side, value in margin.items()})
            for margin in values["margins"]
        )
        return cls(**{**values, "margins": margins})

    def _deviation(self, predicted: Ratings) -> Ratings:
        """Expected deviation of each prediction, in stars."""
        variance = self.variance + self.variance_slope * (predicted - self.centre)
        least = max(_LEAST_VARIANCE * self.variance, np.finfo(np.float64).tiny)  # all residuals may be 0
        deviation: Ratings = np.sqrt(np.maximum(variance, least))
        return deviation


def _buckets(user_counts: ArrayLike) -> NDArray[np.intp]:
    return _BUCKET_STARTS.searchsorted(np.asarray(user_counts), side="right")


def _margins(scores: NDArray[np.float64], coverage: float) -> Margins:
    return Margins(below=_tail(-scores, coverage), above=_tail(scores, coverage))


def _tail(scores: NDArray[np.float64], coverage: float) -> float:
    """The bound that one further score exceeds with probability (1 − coverage) / 2 at most.

    That is the ⌈(n + 1)(1 − α/2)⌉-th smallest of n exchangeable scores; beyond the largest there is no bound.
    """
    rank = math.ceil((len(scores) + 1) * (1 + coverage) / 2)
    return math.inf if rank > len(scores) else float(np.sort(scores)[rank - 1])
