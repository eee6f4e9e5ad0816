"""The two sides of every pair: which reviews and which ratings its prediction may read (law 5)."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ubert_model.config import ModelConfig
from ubert_model.deviations import ElsewhereRatings, RatingSums, Residuals, SideDeviations, UsualDeviations, stacked
from ubert_model.history import select_history, without_item, without_user
from ubert_model.ids import IdTable
from ubert_model.rating import BiasModel
from ubert_model.rating_curve import RatingCurve
from ubert_model.states.review import ReviewEntry
from ubert_training.reviews.table import ReviewTable

Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class PairSums:
    """The ratings beneath the bias of P pairs: those of every known review of both sides, less the pair's own.

    ``mean`` is the mean rating of the known reviews, the pair's own left out.

    Shape:
        mean, and the arrays of both sums: (P,).
    """

    user: RatingSums
    item: RatingSums
    mean: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Histories:
    """P pairs, each with the review rows of its two sides, newest first, how far each of these reviews' ratings lies
    above what the bias model expects, and the ratings beneath its bias.

    Sums cover every known review of the entity, rows only those that fit the model's budget.

    Shape:
        pairs (row of the target review): (P,); user_rows, item_rows and the residuals, in stars: P arrays.
    """

    pairs: Rows
    user_rows: Sequence[Rows]
    item_rows: Sequence[Rows]
    user_residuals: Sequence[Residuals]
    item_residuals: Sequence[Residuals]
    sums: PairSums

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def user_count(self) -> NDArray[np.float64]:
        """Known reviews of each pair's user, (P,)."""
        return np.asarray(self.sums.user.count, dtype=np.float64)

    @property
    def item_count(self) -> NDArray[np.float64]:
        """Known reviews of each pair's item, (P,)."""
        return np.asarray(self.sums.item.count, dtype=np.float64)

    @property
    def has_both_sides(self) -> NDArray[np.bool_]:
        """Pairs that the network can read: both sides have a review with text, (P,)."""
        return np.array([len(u) > 0 and len(i) > 0 for u, i in zip(self.user_rows, self.item_rows, strict=True)])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """Both sides of one pair and the means over all known reviews, the pair's own left out of everything."""

    of_user: list[ReviewEntry]
    of_item: list[ReviewEntry]
    user_mean: float
    """In what ratings count for on the user's side."""
    item_mean: float
    """Likewise on the item's."""
    mean: float


class KnownReviews:
    """The reviews that predictions may read (the training part), listed by user and by item as a store lists them.

    Shape:
        lengths: (R,), tokens of each review of the table.
    """

    def __init__(
        self,
        table: ReviewTable,
        known: Rows,
        lengths: NDArray[np.int64],
        config: ModelConfig,
        elsewhere: Rows | None = None,
    ) -> None:
        """``elsewhere``: rows of other domains, whose ratings tell of their users."""
        self._table = table
        self._elsewhere = [table.entry(row, 0) for row in (() if elsewhere is None else elsewhere.tolist())]
        self._config = config
        self._row_of: dict[str, int] = {}
        self._by_user: dict[str, list[ReviewEntry]] = defaultdict(list)
        self._by_item: dict[str, list[ReviewEntry]] = defaultdict(list)
        for row in known.tolist()[::-1]:  # the table is ordered by recency; lists are newest first
            entry = table.entry(row, int(lengths[row]))
            self._row_of[entry.review_id] = row
            self._by_user[entry.user].append(entry)
            self._by_item[entry.item].append(entry)
        self._mean = float(table.rating[known].mean(dtype=np.float64))
        self._count = len(known)

    @property
    def reads_elsewhere(self) -> bool:
        """Are there ratings of other domains?"""
        return bool(self._elsewhere)

    def usual(self, user_curve: RatingCurve, item_curve: RatingCurve, *, elsewhere: float = 0.0) -> UsualDeviations:
        """What these reviews show to be usual, in what ratings count for by the two curves.

        ``elsewhere``: which part of a rating one in another domain counts for.
        """
        users = IdTable.of([*self._by_user, *(review.user for review in self._elsewhere)])
        return UsualDeviations.of(
            list(itertools.chain.from_iterable(self._by_user.values())),
            curves=(user_curve, item_curve),
            user_ids=users,
            item_ids=IdTable.of(self._by_item),
            elsewhere=ElsewhereRatings.of(self._elsewhere, user_curve, users).weighted(elsewhere),
        )

    def histories(self, pairs: Rows, bias: BiasModel, usual: UsualDeviations) -> Histories:
        """Both sides of each pair, its own reviews left out of everything."""
        known = [self._known_of(row, usual) for row in pairs.tolist()]
        sums = self._sums(pairs, known, usual)
        user_bias, item_bias = bias.user.bias(sums.user), bias.item.bias(sums.item)  # (P,)
        user_rows: list[Rows] = []
        item_rows: list[Rows] = []
        user_residuals: list[Residuals] = []
        item_residuals: list[Residuals] = []
        for number, one in enumerate(known):
            of_user, of_item = self._selected(one.of_user), self._selected(one.of_item)
            user_rows.append(self._rows(of_user))
            item_rows.append(self._rows(of_item))
            user_residuals.append(usual.residuals_of_user(of_user, user_bias[number], one.user_mean))
            item_residuals.append(usual.residuals_of_item(of_item, item_bias[number], one.item_mean))
        return Histories(
            pairs=pairs,
            user_rows=user_rows,
            item_rows=item_rows,
            user_residuals=user_residuals,
            item_residuals=item_residuals,
            sums=sums,
        )

    def sums(self, pairs: Rows, usual: UsualDeviations) -> PairSums:
        """The ratings beneath each pair's bias, its own left out of the sums and of every mean."""
        return self._sums(pairs, (self._known_of(row, usual) for row in pairs.tolist()), usual)

    def _sums(self, pairs: Rows, known: Iterable[_Known], usual: UsualDeviations) -> PairSums:
        user: list[RatingSums] = []
        item: list[RatingSums] = []
        means: list[float] = []
        for row, one in zip(pairs.tolist(), known, strict=True):
            user.append(usual.of_user(self._table.user[row], one.of_user, one.user_mean))
            item.append(usual.of_item(self._table.item[row], one.of_item, one.item_mean))
            means.append(one.mean)
        return PairSums(user=stacked(user), item=stacked(item), mean=np.array(means, dtype=np.float64))

    def _known_of(self, row: int, usual: UsualDeviations) -> _Known:
        user, item = self._table.user[row], self._table.item[row]
        of_user = self._by_user.get(user, [])
        own = [review.rating for review in of_user if review.item == item]
        return _Known(
            of_user=without_item(of_user, item),
            of_item=without_user(self._by_item.get(item, []), user),
            user_mean=self._side_mean(usual.user, own),
            item_mean=self._side_mean(usual.item, own),
            mean=self._mean_without(self._mean, own),
        )

    def _side_mean(self, side: SideDeviations, own: Sequence[float]) -> float:
        return self._mean_without(side.mean, [side.curve(rating) for rating in own])

    def _mean_without(self, mean: float, own: Sequence[float]) -> float:
        return (mean * self._count - sum(own)) / max(1, self._count - len(own))

    def _selected(self, reviews: list[ReviewEntry]) -> list[ReviewEntry]:
        return select_history(reviews, max_reviews=self._config.max_reviews, max_tokens=self._config.max_tokens)

    def _rows(self, reviews: list[ReviewEntry]) -> Rows:
        return np.array([self._row_of[review.review_id] for review in reviews], dtype=np.int64)
