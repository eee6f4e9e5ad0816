"""Ratings of reviews as columns, which the bias model reads."""

from collections.abc import Sequence

import numpy as np

from ubert_model.ids import IdTable
from ubert_model.rating.deviations import RatingColumns, SideDeviations
from ubert_model.review import ReviewEntry


def rating_columns(
    reviews: Sequence[ReviewEntry], *, user_ids: IdTable | None = None, item_ids: IdTable | None = None
) -> RatingColumns:
    """The columns of ``reviews``. The tables of identifiers default to those of the reviews."""
    users, items = [review.user for review in reviews], [review.item for review in reviews]
    return RatingColumns.of(
        users,
        items,
        [review.rating for review in reviews],
        [review.surplus for review in reviews],
        user_ids=IdTable.of(users) if user_ids is None else user_ids,
        item_ids=IdTable.of(items) if item_ids is None else item_ids,
    )


def terms_of_one(side: SideDeviations, counterpart: str, rating: float, surplus: float = 0.0) -> tuple[float, float]:
    """Level and share of one review (:meth:`SideDeviations.terms_of`), given its counterpart."""
    level = side.worth.levels(np.array([rating]), np.array([surplus]))
    levels, shares = side.terms_of(np.array([1]), level, IdTable([counterpart]))
    return float(levels[0]), float(shares[0])
