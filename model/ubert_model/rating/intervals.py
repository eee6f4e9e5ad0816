"""How far a predicted rating may be off: split-conformal intervals by the prediction and the user's history.

Numpy only: training fits them on validation pairs, the service gives one with every prediction.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ubert_model.config import RatingScale
from ubert_model.rating import Floats
from ubert_model.validation import require

HISTORY_BUCKETS = (0, 1, 3, 10)
"""Least number of the user's reviews in each bucket."""
_BUCKET_STARTS = np.array(HISTORY_BUCKETS[1:])


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

    def around(self, predicted: Floats) -> tuple[Floats, Floats]:
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

    def around(self, ratings: ArrayLike, user_counts: ArrayLike, scale: RatingScale) -> tuple[Floats, Floats]:
        """Lower and upper bounds in stars, cut to the scale, (B,) each.

        Shape:
            ratings: predictions in stars, (B,); user_counts: reviews of each user that the prediction may use, (B,).
        """
        predicted = np.asarray(ratings, dtype=np.float64)
        bucket = np.broadcast_to(history_buckets(user_counts), predicted.shape)
        bounds = np.empty((2, *predicted.shape))
        for number in np.unique(bucket).tolist():
            mine = bucket == number
            bounds[:, mine] = self.margins[number].around(predicted[mine])
        low, high = np.clip(bounds, scale.lowest, scale.highest)
        return low, high

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the manifest."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_json`."""
        margins = (Margins(**{name: tuple(column) for name, column in entry.items()}) for entry in values["margins"])
        return cls(**{**values, "margins": tuple(margins)})


def history_buckets(user_counts: ArrayLike) -> NDArray[np.intp]:
    """The bucket of each user, (B,), by how many reviews the prediction may use."""
    return _BUCKET_STARTS.searchsorted(np.asarray(user_counts), side="right")
