"""The two sides of every pair: which reviews and which ratings its prediction may read (law 5)."""

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ubert_model.config import ModelConfig
from ubert_model.deviations import RatingSums, UsualDeviations, stacked
from ubert_model.history import select_history, without_item, without_user
from ubert_model.ids import IdTable
from ubert_model.states.review import ReviewEntry
from ubert_training.reviews.table import ReviewTable

Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Histories:
    """P pairs, each with the review rows of its two sides, newest first, and the ratings beneath its bias.

    Sums cover every known review of the entity, rows only those that fit the model's budget. ``mean`` is the
    mean rating of the known reviews, the pair's own left out.

    Shape:
        pairs (row of the target review), mean, and the arrays of both sums: (P,); user_rows, item_rows: P arrays.
    """

    pairs: Rows
    user_rows: Sequence[Rows]
    item_rows: Sequence[Rows]
    user_sums: RatingSums
    item_sums: RatingSums
    mean: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def user_count(self) -> NDArray[np.float64]:
        """Known reviews of each pair's user, (P,)."""
        return np.asarray(self.user_sums.count, dtype=np.float64)

    @property
    def item_count(self) -> NDArray[np.float64]:
        """Known reviews of each pair's item, (P,)."""
        return np.asarray(self.item_sums.count, dtype=np.float64)

    @property
    def has_both_sides(self) -> NDArray[np.bool_]:
        """Pairs that the network can read: both sides have a review with text, (P,)."""
        return np.array([len(u) > 0 and len(i) > 0 for u, i in zip(self.user_rows, self.item_rows, strict=True)])


def review_entry(table: ReviewTable, row: int, tokens: int) -> ReviewEntry:
    """The line of a review list that stands for a row of the table."""
    return ReviewEntry(
        review_id=table.review_id[row],
        user=table.user[row],
        item=table.item[row],
        rating=float(table.rating[row]),
        timestamp=int(table.timestamp[row]),
        tokens=tokens,
    )


class KnownReviews:
    """The reviews that predictions may read (the training part), listed by user and by item as a store lists them."""

    def __init__(self, table: ReviewTable, known: Rows, lengths: NDArray[np.int64], config: ModelConfig) -> None:
        self._table = table
        self._config = config
        self._row_of: dict[str, int] = {}
        self._by_user: dict[str, list[ReviewEntry]] = defaultdict(list)
        self._by_item: dict[str, list[ReviewEntry]] = defaultdict(list)
        for row in known.tolist()[::-1]:  # the table is ordered by recency; lists are newest first
            entry = review_entry(table, row, int(lengths[row]))
            self._row_of[entry.review_id] = row
            self._by_user[entry.user].append(entry)
            self._by_item[entry.item].append(entry)
        self._count = len(known)
        self._total = float(table.rating[known].sum(dtype=np.float64))
        self.deviations = UsualDeviations.of(
            itertools.chain.from_iterable(self._by_user.values()),
            user_ids=IdTable.of(self._by_user),
            item_ids=IdTable.of(self._by_item),
        )

    def histories(self, pairs: Rows) -> Histories:
        """Both sides of each pair, its own reviews left out of everything."""
        sides = [self._sides(row) for row in pairs.tolist()]
        return Histories(
            pairs=pairs,
            user_rows=[side[0] for side in sides],
            item_rows=[side[1] for side in sides],
            user_sums=stacked([side[2] for side in sides]),
            item_sums=stacked([side[3] for side in sides]),
            mean=np.array([side[4] for side in sides], dtype=np.float64),
        )

    def _sides(self, row: int) -> tuple[Rows, Rows, RatingSums, RatingSums, float]:
        user, item = self._table.user[row], self._table.item[row]
        of_user = self._by_user.get(user, [])
        user_reviews = without_item(of_user, item)
        item_reviews = without_user(self._by_item.get(item, []), user)
        own = [review.rating for review in of_user if review.item == item]
        return (
            self._rows(user_reviews),
            self._rows(item_reviews),
            self.deviations.of_user(user_reviews),
            self.deviations.of_item(item_reviews),
            (self._total - sum(own)) / max(1, self._count - len(own)),
        )

    def _rows(self, reviews: list[ReviewEntry]) -> Rows:
        selected = select_history(reviews, max_reviews=self._config.max_reviews, max_tokens=self._config.max_tokens)
        return np.array([self._row_of[review.review_id] for review in selected], dtype=np.int64)
