"""The two sides of every pair: which reviews and which ratings its prediction may read (law 5)."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

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


class _Total(NamedTuple):
    """So many ratings of one user or item: in all they lie ``level − share · mean`` above what is usual."""

    ratings: int = 0
    level: float = 0.0
    share: float = 0.0

    def plus(self, level: float, share: float) -> "_Total":
        return _Total(self.ratings + 1, self.level + level, self.share + share)

    def less(self, level: float, share: float) -> "_Total":
        return _Total(self.ratings - 1, self.level - level, self.share - share)

    def above(self, mean: float) -> RatingSums:
        return RatingSums(count=self.ratings, above_usual=self.level - self.share * mean)


class KnownReviews:
    """The reviews that predictions may read (the training part), listed by user and by item as a store lists them.

    What a pair costs does not grow with the lists of its user and its item: their ratings are summed up once for all
    pairs, and a pair's own are taken off again.

    Shape:
        row_counts: (R,), rows of states of each review of the table.
    """

    def __init__(
        self,
        table: ReviewTable,
        known: Rows,
        row_counts: NDArray[np.int64],
        config: ModelConfig,
        elsewhere: Rows | None = None,
    ) -> None:
        """``elsewhere``: rows of other domains, whose ratings tell of their users."""
        self._table = table
        self._elsewhere = [table.entry(row, 0) for row in (() if elsewhere is None else elsewhere.tolist())]
        self._config = config
        # The table is ordered by recency; lists are newest first.
        self._reviews = [table.entry(row, int(row_counts[row])) for row in known.tolist()[::-1]]
        self._row_of = {table.review_id[row]: row for row in known.tolist()}
        self._ratings_of: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._read_by_user: dict[str, list[ReviewEntry]] = defaultdict(list)
        self._read_by_item: dict[str, list[ReviewEntry]] = defaultdict(list)
        for review in self._reviews:
            self._ratings_of[review.user, review.item].append(review.rating)
            if review.rows:
                self._read_by_user[review.user].append(review)
                self._read_by_item[review.item].append(review)
        self._mean = float(table.rating[known].mean(dtype=np.float64))

    @property
    def reads_elsewhere(self) -> bool:
        """Are there ratings of other domains?"""
        return bool(self._elsewhere)

    def usual(self, user_curve: RatingCurve, item_curve: RatingCurve, *, elsewhere: float = 0.0) -> UsualDeviations:
        """What these reviews show to be usual, in what ratings count for by the two curves.

        ``elsewhere``: which part of a rating one in another domain counts for.
        """
        users = IdTable.of(review.user for review in [*self._reviews, *self._elsewhere])
        return UsualDeviations.of(
            self._reviews,
            curves=(user_curve, item_curve),
            user_ids=users,
            item_ids=IdTable.of(review.item for review in self._reviews),
            elsewhere=ElsewhereRatings.of(self._elsewhere, user_curve, users).weighted(elsewhere),
        )

    def histories(self, pairs: Rows, bias: BiasModel, usual: UsualDeviations) -> Histories:
        """Both sides of each pair, its own reviews left out of everything."""
        sums = self.sums(pairs, usual)
        user_bias, item_bias = bias.user.bias(sums.user), bias.item.bias(sums.item)  # (P,)
        user_rows: list[Rows] = []
        item_rows: list[Rows] = []
        user_residuals: list[Residuals] = []
        item_residuals: list[Residuals] = []
        for number, (user, item, own) in enumerate(self._named(pairs)):
            of_user = self._selected(without_item(self._newest(self._read_by_user.get(user, []), len(own)), item))
            of_item = self._selected(without_user(self._newest(self._read_by_item.get(item, []), len(own)), user))
            user_rows.append(self._rows(of_user))
            item_rows.append(self._rows(of_item))
            user_mean, item_mean = (self._side_mean(side, own) for side in (usual.user, usual.item))
            user_residuals.append(usual.residuals_of_user(of_user, user_bias[number], user_mean))
            item_residuals.append(usual.residuals_of_item(of_item, item_bias[number], item_mean))
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
        of_users = _totals(usual.user, ((one.user, one.item, one.rating) for one in self._reviews))
        of_items = _totals(usual.item, ((one.item, one.user, one.rating) for one in self._reviews))
        user_sums: list[RatingSums] = []
        item_sums: list[RatingSums] = []
        means: list[float] = []
        for user, item, own in self._named(pairs):
            of_user = self._without(own, usual.user, of_users.get(user, _Total()), item)
            user_sums.append(usual.elsewhere.added(user, of_user))
            item_sums.append(self._without(own, usual.item, of_items.get(item, _Total()), user))
            means.append(self._mean_without(self._mean, own))
        return PairSums(user=stacked(user_sums), item=stacked(item_sums), mean=np.array(means, dtype=np.float64))

    def _named(self, pairs: Rows) -> Iterator[tuple[str, str, list[float]]]:
        """User and item of each pair, and what the user is known to have rated the item."""
        for row in pairs.tolist():
            user, item = self._table.user[row], self._table.item[row]
            yield user, item, self._ratings_of.get((user, item), [])

    def _without(self, own: Sequence[float], side: SideDeviations, total: _Total, counterpart: str) -> RatingSums:
        for rating in own:
            total = total.less(*side.terms(counterpart, rating))
        return total.above(self._side_mean(side, own))

    def _side_mean(self, side: SideDeviations, own: Sequence[float]) -> float:
        return self._mean_without(side.mean, [side.curve(rating) for rating in own])

    def _mean_without(self, mean: float, own: Sequence[float]) -> float:
        """The mean over all known reviews, less a pair's own; it stays where there are no others."""
        count, others = len(self._reviews), len(self._reviews) - len(own)
        return (mean * count - sum(own)) / others if others else mean

    def _newest(self, reviews: list[ReviewEntry], own: int) -> list[ReviewEntry]:
        """All that can be selected of a list from which so many of a pair's own are still to be left out."""
        return reviews[: self._config.max_reviews + own]

    def _selected(self, reviews: list[ReviewEntry]) -> list[ReviewEntry]:
        return select_history(reviews, max_reviews=self._config.max_reviews, max_rows=self._config.max_rows)

    def _rows(self, reviews: list[ReviewEntry]) -> Rows:
        return np.array([self._row_of[review.review_id] for review in reviews], dtype=np.int64)


def _totals(side: SideDeviations, ratings: Iterable[tuple[str, str, float]]) -> dict[str, _Total]:
    """Of all ratings of each user or item, which come as (entity, counterpart, rating)."""
    totals: dict[str, _Total] = {}
    for entity, counterpart, rating in ratings:
        totals[entity] = totals.get(entity, _Total()).plus(*side.terms(counterpart, rating))
    return totals
