"""What a review in a history counts for: its rating, and what its text says beyond the rating."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ubert_model.rating import Floats
from ubert_model.rating.curve import RatingCurve


@dataclass(frozen=True, kw_only=True)
class ReviewWorth:
    """What a review counts for on one side, in stars of the bias: its rating on the curve, and ``surplus_weight`` times
    its surplus, which is what the text says beyond the rating (:class:`~ubert_model.rating.text_reader.TextReader`).
    """

    curve: RatingCurve
    surplus_weight: float = 0.0

    def __call__(self, rating: float, surplus: float) -> float:
        """The worth of one review."""
        return self.curve(rating) + self.surplus_weight * surplus

    def worths(self, ratings: Floats, surpluses: Floats) -> Floats:
        """The worth of many, (R,), bit-identical to calls one by one."""
        return self.curve.at(ratings) + self.surplus_weight * surpluses

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """From the plain values of its fields."""
        return cls(**{**values, "curve": RatingCurve.from_json(values["curve"])})
