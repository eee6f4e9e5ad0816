"""The two sides of every pair: which reviews and which ratings its prediction may read (law 5)."""

from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ubert_model.config import ModelConfig
from ubert_model.history import select_history, without_counterpart
from ubert_model.ids import IdTable
from ubert_model.rating import Floats
from ubert_model.rating.blend import BiasModel
from ubert_model.rating.deviations import RatingSums, UsualDeviations
from ubert_model.rating.worth import ReviewWorth
from ubert_model.review import ReviewEntry, Side
from ubert_training.finetuning.rating_columns import RatingColumns
from ubert_training.finetuning.usual_fit import fit_usual_deviations, net_of_usual, with_elsewhere
from ubert_training.ragged import RaggedArray
from ubert_training.reviews.table import ReviewTable, Rows


@dataclass(frozen=True, kw_only=True, eq=False)
class PairSums:
    """The ratings that the bias of each of P pairs is computed from: all known ones of both sides but the pair's own.

    ``mean``: that of the known ratings, the pair's own left out.

    Shape:
        mean, and the arrays of both sums: (P,).
    """

    user: RatingSums
    item: RatingSums
    mean: Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Histories:
    """What the prediction of each of P pairs may read: the reviews of its two sides, newest first, their residuals
    (how far each review lies above what the bias model expects), and the sums that its bias is computed from.

    Sums cover every known review of an entity, rows only those that fit the model's budget.

    Shape:
        pairs (table row of the target review): (P,); user_rows, item_rows (table rows) and the residuals, in stars: P
        rows each.
    """

    pairs: Rows
    user_rows: RaggedArray
    item_rows: RaggedArray
    user_residuals: RaggedArray
    item_residuals: RaggedArray
    sums: PairSums

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def user_count(self) -> Floats:
        """Known reviews of each pair's user, (P,)."""
        return np.asarray(self.sums.user.count, dtype=np.float64)

    @property
    def item_count(self) -> Floats:
        """Known reviews of each pair's item, (P,)."""
        return np.asarray(self.sums.item.count, dtype=np.float64)

    @property
    def has_both_sides(self) -> NDArray[np.bool_]:
        """Mask of the pairs that the network can rate: both sides have a review with text, (P,)."""
        return (self.user_rows.lengths > 0) & (self.item_rows.lengths > 0)


@dataclass(frozen=True, kw_only=True, eq=False)
class _TargetRatings:
    """The ratings that leave-one-out excludes: those by each pair's user on its item, often one, seldom more.

    Shape:
        counts: (P,); rounds: the k-th holds the pairs that have more than k, and the k-th rating of each as an index
        into the known ratings, (Q,) and (Q,).
    """

    counts: NDArray[np.int64]
    rounds: Sequence[tuple[Rows, Rows]]

    def subtracted_from(self, values: Floats, per_rating: Floats) -> Floats:
        """The pairs' ``values``, (P,), minus those of their target ratings; ``per_rating``: by known rating, (K,)."""
        left = values.copy()
        for pairs, known in self.rounds:
            left[pairs] -= per_rating[known]
        return left


class KnownReviews:
    """The reviews that predictions may read (the training part), listed by user and by item as a store lists them.

    The cost of a pair does not grow with the reviews of its user and its item: their ratings are summed up once for
    all pairs, and a pair's target ratings are subtracted.

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
        surpluses: Floats | None = None,
    ) -> None:
        """``elsewhere``: rows of other domains, whose ratings add to what is known of their users. ``surpluses``: what
        each text of the table says beyond its rating, (R,), in stars; None: nothing.
        """
        self._table = table
        self._config = config
        # The table is ordered by recency; lists are newest first.
        self._known = known[::-1]
        self.elsewhere = np.zeros(0, dtype=np.int64) if elsewhere is None else elsewhere
        self._surpluses = np.zeros(len(table)) if surpluses is None else surpluses
        read = np.concatenate([known, self.elsewhere])
        users = IdTable.of(table.user[row] for row in read.tolist())
        self._rated = _ratings_at(table, self._known, users, self._surpluses)
        self._rated_elsewhere = _ratings_at(table, self.elsewhere, users, self._surpluses)
        # Sorted, so that the ratings of a pair are adjacent.
        keys = _pair_keys(self._rated.users, self._rated.items, self._rated.item_ids)
        self._by_pair = np.argsort(keys, kind="stable")
        self._sorted_keys = keys[self._by_pair]
        self._index_of: dict[str, int] = {}
        self._readable = {side: defaultdict[str, list[ReviewEntry]](list) for side in Side}
        for index in np.flatnonzero(row_counts[self._known]).tolist():
            row = int(self._known[index])
            review = table.entry(row, int(row_counts[row]))
            self._index_of[review.review_id] = index
            for side in Side:
                self._readable[side][side.entity(review)].append(review)
        self._mean = float(table.rating[read].mean(dtype=np.float64))

    @property
    def ratings_elsewhere(self) -> Floats:
        """The ratings at ``elsewhere``, in stars."""
        return self._rated_elsewhere.ratings

    def everywhere(self) -> "KnownReviews":
        """The reviews in other domains among the others, so that pairs there have sums, too; none can be read."""
        if not len(self.elsewhere):
            return self
        rows = np.union1d(self._known, self.elsewhere)
        nothing = np.zeros(len(self._table), dtype=np.int64)
        return KnownReviews(self._table, rows, nothing, self._config, surpluses=self._surpluses)

    def usual(self, user: ReviewWorth, item: ReviewWorth) -> UsualDeviations:
        """The usual deviations of these reviews' users and items, by what a review counts for on either side."""
        return fit_usual_deviations(self._rated, user, item, self._rated_elsewhere if len(self.elsewhere) else None)

    def histories(self, pairs: Rows, bias: BiasModel, usual: UsualDeviations) -> Histories:
        """Both sides of each pair; the pair's own reviews are left out of everything."""
        sums = self.sums(pairs, usual)
        targets = self._target_ratings(*self._entity_rows(pairs))
        user_rows, user_residuals = self._side_rows(Side.USER, pairs, usual, bias.user.bias(sums.user), targets)
        item_rows, item_residuals = self._side_rows(Side.ITEM, pairs, usual, bias.item.bias(sums.item), targets)
        return Histories(
            pairs=pairs,
            user_rows=user_rows,
            item_rows=item_rows,
            user_residuals=user_residuals,
            item_residuals=item_residuals,
            sums=sums,
        )

    def sums(self, pairs: Rows, usual: UsualDeviations) -> PairSums:
        """The sums for each pair's bias; the pair's own ratings are left out of the sums and of every mean."""
        users, items = self._entity_rows(pairs)
        targets = self._target_ratings(users, items)
        of_users, usual_means = self._side_sums(Side.USER, users, usual, targets)
        of_items, _ = self._side_sums(Side.ITEM, items, usual, targets)
        names = (self._table.user[row] for row in pairs.tolist())
        return PairSums(
            user=with_elsewhere(usual.elsewhere, names, of_users, usual_means),
            item=of_items,
            mean=self._means_without(self._mean, self._rated.ratings, targets),
        )

    def _side_rows(
        self,
        side: Side,
        pairs: Rows,
        usual: UsualDeviations,
        biases: Floats,
        targets: _TargetRatings,
    ) -> tuple[RaggedArray, RaggedArray]:
        """Table rows of the reviews that each pair reads of one side, and their residuals, in stars.

        Shape:
            biases, of each pair's user or item: (P,).
        """
        config = self._config
        read, ends = array("q"), array("q", [0])  # a list of arrays would take several times the memory
        for listed in self._candidates(side, pairs, targets):
            fitting = select_history(listed, max_reviews=config.max_reviews, max_rows=config.max_rows)
            read.extend(self._index_of[review.review_id] for review in fitting)
            ends.append(len(read))
        known, starts = np.array(read, dtype=np.int64), np.array(ends, dtype=np.int64)
        counts = np.diff(starts)
        net_worths, shares, means = self._usual_terms(side, usual, targets)
        above_usual = net_worths[known] - shares[known] * np.repeat(means, counts)
        residuals = (above_usual - np.repeat(biases, counts)).astype(np.float32)
        return RaggedArray(values=self._known[known], starts=starts), RaggedArray(values=residuals, starts=starts)

    def _candidates(self, side: Side, pairs: Rows, targets: _TargetRatings) -> Iterator[list[ReviewEntry]]:
        """The reviews of each pair's user or item that can be selected at all, without the pair's own."""
        users, items = self._table.user, self._table.item
        entities, counterparts = (users, items) if side is Side.USER else (items, users)
        for row, left_out in zip(pairs.tolist(), targets.counts.tolist(), strict=True):
            newest = self._readable[side].get(entities[row], [])[: self._config.max_reviews + left_out]
            yield without_counterpart(side, newest, counterparts[row])

    def _side_sums(
        self, side: Side, pair_entities: Rows, usual: UsualDeviations, targets: _TargetRatings
    ) -> tuple[RatingSums, Floats]:
        """Sums over the ratings of each pair's user or item, without the target ratings, and the mean that goes with
        them for each pair, (P,).

        Shape:
            pair_entities, each pair's user or item: (P,).
        """
        entities = self._rated.users if side is Side.USER else self._rated.items
        net_worths, shares, means = self._usual_terms(side, usual, targets)

        def summed(per_rating: Floats) -> Floats:
            by_entity = np.bincount(entities, per_rating, minlength=int(pair_entities.max(initial=0)) + 1)
            return targets.subtracted_from(np.asarray(by_entity[pair_entities], dtype=np.float64), per_rating)

        above_usual = summed(net_worths) - summed(shares) * means
        return RatingSums(count=summed(np.ones(len(net_worths))), above_usual=above_usual), means

    def _usual_terms(
        self, side: Side, usual: UsualDeviations, targets: _TargetRatings
    ) -> tuple[Floats, Floats, Floats]:
        """Net worth and share of each known rating, (K,) each, as of :func:`net_of_usual`, and the mean that goes with
        them for each pair, (P,).
        """
        rated, deviations = self._rated, usual.on(side)
        worths = deviations.worth.worths(rated.ratings, rated.surpluses)
        return *net_of_usual(deviations, rated, worths), self._means_without(deviations.mean, worths, targets)

    def _entity_rows(self, pairs: Rows) -> tuple[Rows, Rows]:
        """Rows of each pair's user and item in the id tables, (P,) each; 0 for one without a known review."""
        table, rows = self._table, pairs.tolist()
        users = self._rated.user_ids.rows(table.user[row] for row in rows)
        return users, self._rated.item_ids.rows(table.item[row] for row in rows)

    def _target_ratings(self, users: Rows, items: Rows) -> _TargetRatings:
        keys = _pair_keys(users, items, self._rated.item_ids)
        first = np.searchsorted(self._sorted_keys, keys, side="left")
        counts = np.searchsorted(self._sorted_keys, keys, side="right") - first
        rounds = []
        for number in range(int(counts.max(initial=0))):
            having = np.flatnonzero(counts > number)
            rounds.append((having, self._by_pair[first[having] + number]))
        return _TargetRatings(counts=counts, rounds=rounds)

    def _means_without(self, mean: float, per_rating: Floats, targets: _TargetRatings) -> Floats:
        """The mean over all known ratings but a pair's own, (P,); ``mean``, that of all, if there are no others.

        Shape:
            per_rating, of those that are not elsewhere: (K,).
        """
        count = len(per_rating) + len(self.elsewhere)
        others = count - targets.counts
        totals = targets.subtracted_from(np.full(len(others), mean * count, dtype=np.float64), per_rating)
        return np.where(others > 0, totals / np.maximum(others, 1), mean)


def _ratings_at(table: ReviewTable, rows: Rows, user_ids: IdTable, surpluses: Floats) -> RatingColumns:
    items = [table.item[row] for row in rows.tolist()]
    users = (table.user[row] for row in rows.tolist())
    item_ids = IdTable.of(items)
    return RatingColumns.of(users, items, table.rating[rows], surpluses[rows], user_ids=user_ids, item_ids=item_ids)


def _pair_keys(users: Rows, items: Rows, item_ids: IdTable) -> Rows:
    """A unique number for each pair of a user row and an item row, (N,)."""
    return users * (len(item_ids) + 1) + items
