"""Ratings of reviews as the bias model reads them: in columns."""

from collections.abc import Sequence

import numpy as np

from ubert_model.ids import IdTable
from ubert_model.rating.deviations import RatingColumns, SideDeviations
from ubert_model.states.review import ReviewEntry


def rating_columns(
    reviews: Sequence[ReviewEntry], *, user_ids: IdTable | None = None, item_ids: IdTable | None = None
) -> RatingColumns:
    """Without a table, that of all who are named."""
    users, items = [one.user for one in reviews], [one.item for one in reviews]
    return RatingColumns.of(
        users,
        items,
        [one.rating for one in reviews],
        user_ids=IdTable.of(users) if user_ids is None else user_ids,
        item_ids=IdTable.of(items) if item_ids is None else item_ids,
    )


def terms_of_one(side: SideDeviations, counterpart: str, rating: float) -> tuple[float, float]:
    """Level and share of one rating (:meth:`SideDeviations.terms_of`), by the name of its counterpart."""
    levels, shares = side.terms_of(np.array([1]), np.array([rating]), IdTable([counterpart]))
    return float(levels[0]), float(shares[0])
