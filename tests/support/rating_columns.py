"""Ratings of reviews as columns, which the bias model reads."""

from collections.abc import Sequence

from ubert_model.ids import IdTable
from ubert_model.rating.deviations import SideDeviations
from ubert_model.review import ReviewEntry
from ubert_training.finetuning.rating_columns import RatingColumns
from ubert_training.finetuning.usual_fit import net_of_usual


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


def net_of_one(side: SideDeviations, counterpart: str, rating: float, surplus: float = 0.0) -> tuple[float, float]:
    """Net worth and share of one review (:func:`net_of_usual`), given its counterpart."""
    ids = IdTable([counterpart])
    rated = RatingColumns.of([counterpart], [counterpart], [rating], [surplus], user_ids=ids, item_ids=ids)
    net_worths, shares = net_of_usual(side, rated, side.worth.worths(rated.ratings, rated.surpluses))
    return float(net_worths[0]), float(shares[0])
