"""How many ratings a user or an item has."""

from collections.abc import Iterable
from dataclasses import dataclass

from ubert_model.review import ReviewEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class RatingCounts:
    """How many ratings an entity has, and their sum in stars."""

    count: int
    total: float

    @classmethod
    def of(cls, reviews: Iterable[ReviewEntry]) -> "RatingCounts":
        """Counts over a review list."""
        ratings = [review.rating for review in reviews]
        return cls(count=len(ratings), total=sum(ratings))
