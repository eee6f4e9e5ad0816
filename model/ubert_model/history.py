"""Which reviews a prediction reads: the one place that applies law 5 to a review list."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ubert_model.states.review import ReviewEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class RatingCounts:
    """How many ratings an entity has, and their sum in stars; reported in answers."""

    count: int
    total: float

    @classmethod
    def of(cls, reviews: Iterable[ReviewEntry]) -> "RatingCounts":
        """Counts over a review list."""
        ratings = [review.rating for review in reviews]
        return cls(count=len(ratings), total=sum(ratings))


def without_item(user_reviews: Sequence[ReviewEntry], item: str) -> list[ReviewEntry]:
    """The user's reviews except any of this item (law 5)."""
    return [review for review in user_reviews if review.item != item]


def without_user(item_reviews: Sequence[ReviewEntry], user: str) -> list[ReviewEntry]:
    """The item's reviews except any by this user (law 5)."""
    return [review for review in item_reviews if review.user != user]


def select_history(reviews: Sequence[ReviewEntry], *, max_reviews: int, max_rows: int) -> list[ReviewEntry]:
    """The newest reviews that fit into ``max_reviews`` reviews and ``max_rows`` rows of states in all.

    ``reviews`` come newest first. Reviews are taken whole. The first that does not fit ends the selection, so that a
    larger budget always extends a smaller one. Reviews without rows (they have no text) are skipped.
    """
    selected: list[ReviewEntry] = []
    rows = 0
    for review in reviews:
        if not review.rows:
            continue
        rows += review.rows
        if len(selected) == max_reviews or rows > max_rows:
            break
        selected.append(review)
    return selected
