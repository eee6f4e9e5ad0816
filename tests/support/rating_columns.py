"""Ratings of reviews as the bias model reads them: in columns."""

from collections.abc import Sequence

from ubert_model.deviations import RatingColumns
from ubert_model.ids import IdTable
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
