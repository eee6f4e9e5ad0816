"""The ratings that training may read, as columns."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from ubert_model.ids import IdTable
from ubert_model.rating import Floats
from ubert_model.review import Side
from ubert_training.reviews.table import Rows


@dataclass(frozen=True, kw_only=True, eq=False)
class RatingColumns:
    """R ratings as columns; users and items are rows of two id tables.

    Shape:
        users, items: (R,); ratings, surpluses: (R,), in stars.
    """

    user_ids: IdTable
    item_ids: IdTable
    users: Rows
    items: Rows
    ratings: Floats
    surpluses: Floats

    @classmethod
    def of(
        cls,
        users: Iterable[str],
        items: Iterable[str],
        ratings: ArrayLike,
        surpluses: ArrayLike,
        *,
        user_ids: IdTable,
        item_ids: IdTable,
    ) -> Self:
        """Columns of the given users, items, ratings and surpluses of the texts, both in stars."""
        return cls(
            user_ids=user_ids,
            item_ids=item_ids,
            users=user_ids.rows(users),
            items=item_ids.rows(items),
            ratings=np.asarray(ratings, dtype=np.float64),
            surpluses=np.asarray(surpluses, dtype=np.float64),
        )

    def with_others(self, others: "RatingColumns") -> "RatingColumns":
        """These ratings and others by users of the same table, under one table of all items."""
        item_ids = IdTable.of((*self.item_ids.identifiers, *others.item_ids.identifiers))
        items = [np.r_[0, item_ids.rows(part.item_ids.identifiers)][part.items] for part in (self, others)]
        return RatingColumns(
            user_ids=self.user_ids,
            item_ids=item_ids,
            users=np.concatenate([self.users, others.users]),
            items=np.concatenate(items),
            ratings=np.concatenate([self.ratings, others.ratings]),
            surpluses=np.concatenate([self.surpluses, others.surpluses]),
        )

    def counterparts(self, side: Side) -> tuple[Rows, IdTable]:
        """The other side's rows, (R,), and their table: the items that a user rated, the users who rated an item."""
        return (self.items, self.item_ids) if side is Side.USER else (self.users, self.user_ids)
