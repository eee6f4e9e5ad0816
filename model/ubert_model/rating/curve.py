"""What a rating in a history counts for: an increasing curve over the scale, since stars are not evenly spaced.

One star often reports a broken string rather than a strict user, and says less about the user's next rating than its
distance from four stars suggests.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Self

import numpy as np

from ubert_model.config import RatingScale
from ubert_model.rating import Floats
from ubert_model.validation import require


@dataclass(frozen=True, kw_only=True)
class RatingCurve:
    """Linear between its knots and constant beyond them.

    Shape:
        knots: (S + 1,), increasing, in stars of the scale; values: (S + 1,), not decreasing, in stars of the bias.
    """

    knots: tuple[float, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        matching = len(self.knots) == len(self.values) > 1
        require(matching, "values", self.values, f"give one for each of the knots {self.knots}, two or more")
        for name, low, high in (("knots", np.less, "increase"), ("values", np.less_equal, "never decrease")):
            ordered = getattr(self, name)
            require(all(low(*pair) for pair in pairwise(ordered)), name, ordered, f"they must {high}")

    @classmethod
    def of_rises(cls, scale: RatingScale, rises: Sequence[float]) -> Self:
        """The curve that is 0 at the lowest rating and rises by ``rises[k]`` over the k-th equal part of the scale."""
        knots = np.linspace(scale.lowest, scale.highest, len(rises) + 1)
        values = np.concatenate([[0.0], np.cumsum(rises)])
        return cls(knots=tuple(knots.tolist()), values=tuple(values.tolist()))

    @cached_property
    def _slopes(self) -> tuple[float, ...]:
        return tuple((np.diff(self.values) / np.diff(self.knots)).tolist())

    def __call__(self, rating: float) -> float:
        """The curve at one rating. Plain Python: a history is short, and this is called for each of its ratings."""
        knots, values = self.knots, self.values
        if rating >= knots[-1]:
            return values[-1]
        segment = bisect_right(knots, rating) - 1
        if segment < 0:
            return values[0]
        return values[segment] + self._slopes[segment] * (rating - knots[segment])

    def at(self, ratings: Floats) -> Floats:
        """The curve at many ratings, (R,), bit-identical to calls one by one; it is called once per distinct rating."""
        distinct, place = np.unique(ratings, return_inverse=True)
        return np.array([self(rating) for rating in distinct.tolist()], dtype=np.float64)[place]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """From the plain values of its fields."""
        return cls(knots=tuple(values["knots"]), values=tuple(values["values"]))
