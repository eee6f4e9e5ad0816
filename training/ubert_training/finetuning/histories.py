"""The two sides of every pair: which reviews and which ratings its prediction may read (law 5)."""

from array import array
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ubert_model.config import ModelConfig
from ubert_model.history import select_history, without_item, without_user
from ubert_model.ids import IdTable
from ubert_model.rating.blend import BiasModel
from ubert_model.rating.curve import RatingCurve
from ubert_model.rating.deviations import (
    ElsewhereRatings,
    RatingColumns,
    RatingSums,
    Residuals,
    SideDeviations,
    UsualDeviations,
)
from ubert_model.states.review import ReviewEntry
from ubert_training.reviews.table import ReviewTable, Rows
from ubert_training.stretches import Stretches


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


@dataclass(frozen=True, kw_only=True, eq=False)
class _OwnRatings:
    """What the user of each of P pairs is known to have rated its item: often one rating, seldom more.

    Shape:
        counts: (P,); each of ``steps`` names pairs and a known rating of each, (Q,) and (Q,).
    """

    counts: NDArray[np.int64]
    steps: Sequence[tuple[Rows, Rows]]

    def taken_off(self, values: NDArray[np.float64], of_known: NDArray[np.float64]) -> NDArray[np.float64]:
        """One value a pair, (P,), less those of its own ratings; ``of_known``: one a known rating, (K,)."""
        left = values.copy()
        for pairs, known in self.steps:
            left[pairs] -= of_known[known]
        return left


class _History:
    """One side of all pairs, as it grows: the known reviews that are read, and their residuals.

    Shape:
        terms: level and share of every known rating (:meth:`SideDeviations.terms_of`), (K,) each.
    """

    def __init__(self, terms: tuple[NDArray[np.float64], NDArray[np.float64]]) -> None:
        self._levels, self._shares = terms
        self._places = array("q")
        self._residuals = array("f")
        self._ends = array("q", [0])

    def add(self, places: Rows, mean: float, bias: float) -> None:
        """The next pair's: by the mean of its side without its own ratings, and the bias of its user or item."""
        above = self._levels[places] - self._shares[places] * mean - bias
        self._places.frombytes(places.tobytes())
        self._residuals.frombytes(above.astype(np.float32).tobytes())
        self._ends.append(len(self._places))

    def rows(self, known: Rows) -> Stretches:
        """Rows of the table, by those of all known reviews, (K,)."""
        return self._cut(known[np.array(self._places, dtype=np.int64)])

    def residuals(self) -> Stretches:
        """In stars."""
        return self._cut(np.array(self._residuals, dtype=np.float32))

    def _cut(self, values: NDArray[Any]) -> Stretches:
        return Stretches(values=values, starts=np.array(self._ends, dtype=np.int64))


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
        self._config = config
        # The table is ordered by recency; lists are newest first.
        self._known = known[::-1]
        further = np.zeros(0, dtype=np.int64) if elsewhere is None else elsewhere
        users = IdTable.of(table.user[row] for row in chain(known.tolist(), further.tolist()))
        self._rated = _ratings_at(table, self._known, users)
        self._elsewhere = _ratings_at(table, further, users)
        # Sorted, so that the ratings of a pair stand together.
        numbers = _pair_numbers(self._rated.users, self._rated.items, self._rated.item_ids)
        self._by_pair = np.argsort(numbers, kind="stable")
        self._pair_numbers = numbers[self._by_pair]
        self._place_of: dict[str, int] = {}
        self._read_by_user: dict[str, list[ReviewEntry]] = defaultdict(list)
        self._read_by_item: dict[str, list[ReviewEntry]] = defaultdict(list)
        for place in np.flatnonzero(row_counts[self._known]).tolist():
            row = int(self._known[place])
            review = table.entry(row, int(row_counts[row]))
            self._place_of[review.review_id] = place
            self._read_by_user[review.user].append(review)
            self._read_by_item[review.item].append(review)
        self._mean = float(table.rating[known].mean(dtype=np.float64))

    @property
    def reads_elsewhere(self) -> bool:
        """Are there ratings of other domains?"""
        return len(self._elsewhere.ratings) > 0

    def usual(self, user_curve: RatingCurve, item_curve: RatingCurve, *, elsewhere: float = 0.0) -> UsualDeviations:
        """What these reviews show to be usual, in what ratings count for by the two curves.

        ``elsewhere``: which part of a rating one in another domain counts for.
        """
        of_users = ElsewhereRatings.of(self._elsewhere, user_curve).weighted(elsewhere)
        return UsualDeviations.of(self._rated, (user_curve, item_curve), of_users)

    def histories(self, pairs: Rows, bias: BiasModel, usual: UsualDeviations) -> Histories:
        """Both sides of each pair, its own reviews left out of everything."""
        sums = self.sums(pairs, usual)
        user_bias, item_bias = bias.user.bias(sums.user), bias.item.bias(sums.item)  # (P,)
        own = self._own_ratings(*self._named(pairs))
        user_mean, item_mean = (self._side_means(side, own) for side in (usual.user, usual.item))  # (P,)
        rated = self._rated
        of_users = _History(usual.user.terms_of(rated.items, rated.ratings, rated.item_ids))
        of_items = _History(usual.item.terms_of(rated.users, rated.ratings, rated.user_ids))
        for number, (row, left_out) in enumerate(zip(pairs.tolist(), own.counts.tolist(), strict=True)):
            user, item = self._table.user[row], self._table.item[row]
            of_user = self._selected(without_item(self._newest(self._read_by_user.get(user, []), left_out), item))
            of_item = self._selected(without_user(self._newest(self._read_by_item.get(item, []), left_out), user))
            of_users.add(self._places(of_user), user_mean[number], user_bias[number])
            of_items.add(self._places(of_item), item_mean[number], item_bias[number])
        return Histories(
            pairs=pairs,
            user_rows=of_users.rows(self._known),
            item_rows=of_items.rows(self._known),
            user_residuals=of_users.residuals(),
            item_residuals=of_items.residuals(),
            sums=sums,
        )

    def sums(self, pairs: Rows, usual: UsualDeviations) -> PairSums:
        """The ratings beneath each pair's bias, its own left out of the sums and of every mean."""
        rated = self._rated
        users, items = self._named(pairs)
        own = self._own_ratings(users, items)
        of_users = self._side_sums(usual.user, rated.users, (rated.items, rated.item_ids), users, own)
        return PairSums(
            user=usual.elsewhere.added_to_each((self._table.user[row] for row in pairs.tolist()), of_users),
            item=self._side_sums(usual.item, rated.items, (rated.users, rated.user_ids), items, own),
            mean=self._means_without(self._mean, rated.ratings, own),
        )

    def _side_sums(
        self,
        side: SideDeviations,
        entities: Rows,
        counterparts: tuple[Rows, IdTable],
        asked: Rows,
        own: _OwnRatings,
    ) -> RatingSums:
        """Sums over the ratings of the users or items ``asked``, (P,), less the pairs' own.

        Shape:
            entities and the rows of their counterparts: those of each known rating, (K,).
        """
        levels, shares = side.terms_of(counterparts[0], self._rated.ratings, counterparts[1])

        def summed(of_known: NDArray[np.float64]) -> NDArray[np.float64]:
            of_entities = np.bincount(entities, of_known, minlength=int(asked.max(initial=0)) + 1)
            return own.taken_off(np.asarray(of_entities[asked], dtype=np.float64), of_known)

        return RatingSums(
            count=summed(np.ones(len(levels))),
            above_usual=summed(levels) - summed(shares) * self._side_means(side, own),
        )

    def _named(self, pairs: Rows) -> tuple[Rows, Rows]:
        """Rows of the user and of the item of each pair, (P,) each; 0 for those of no known review."""
        table, rows = self._table, pairs.tolist()
        users = self._rated.user_ids.rows(table.user[row] for row in rows)
        return users, self._rated.item_ids.rows(table.item[row] for row in rows)

    def _own_ratings(self, users: Rows, items: Rows) -> _OwnRatings:
        asked = _pair_numbers(users, items, self._rated.item_ids)
        first = np.searchsorted(self._pair_numbers, asked, side="left")
        end = np.searchsorted(self._pair_numbers, asked, side="right")
        counts = end - first
        steps = []
        for number in range(int(counts.max(initial=0))):
            having = np.flatnonzero(counts > number)
            steps.append((having, self._by_pair[first[having] + number]))
        return _OwnRatings(counts=counts, steps=steps)

    def _side_means(self, side: SideDeviations, own: _OwnRatings) -> NDArray[np.float64]:
        return self._means_without(side.mean, side.curve.levels(self._rated.ratings), own)

    def _means_without(self, mean: float, of_known: NDArray[np.float64], own: _OwnRatings) -> NDArray[np.float64]:
        """The mean over all known ratings, less a pair's own, (P,); it stays where there are no others."""
        count = len(of_known)
        others = count - own.counts
        left = own.taken_off(np.full(len(others), mean * count, dtype=np.float64), of_known) / np.maximum(others, 1)
        return np.where(others > 0, left, mean)

    def _newest(self, reviews: list[ReviewEntry], own: int) -> list[ReviewEntry]:
        """All that can be selected of a list from which so many of a pair's own are still to be left out."""
        return reviews[: self._config.max_reviews + own]

    def _selected(self, reviews: list[ReviewEntry]) -> list[ReviewEntry]:
        return select_history(reviews, max_reviews=self._config.max_reviews, max_rows=self._config.max_rows)

    def _places(self, reviews: list[ReviewEntry]) -> Rows:
        """Where they stand among the known reviews."""
        return np.array([self._place_of[review.review_id] for review in reviews], dtype=np.int64)


def _ratings_at(table: ReviewTable, rows: Rows, users: IdTable) -> RatingColumns:
    items = [table.item[row] for row in rows.tolist()]
    wrote = (table.user[row] for row in rows.tolist())
    return RatingColumns.of(wrote, items, table.rating[rows], user_ids=users, item_ids=IdTable.of(items))


def _pair_numbers(users: Rows, items: Rows, item_ids: IdTable) -> Rows:
    """A number for each pair of a user's row and an item's, (N,)."""
    return users * (len(item_ids) + 1) + items
