"""How far the reviews in a history lie from what is usual for the items rated, or for the users who rated.

A user who rated three excellent items with five stars is not shown to be generous by it. So the bias model subtracts
from each review in a user's history how far its item usually lies from the mean, and from each in an item's history
how far its user does. These usual deviations are frozen with the bundle. They belong to the items and users of the
*other* reviews, never to the target's own, so a prediction still reads nothing of its target (law 5).

All of it is computed on what reviews count for (:class:`ReviewWorth`), which differs between a user's habit and an
item's quality. What pre-training has read of a user in other domains is added to the user's side.
"""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ubert_model.errors import BundleError
from ubert_model.ids import IdTable
from ubert_model.rating.worth import ReviewWorth
from ubert_model.review import ReviewEntry, Side
from ubert_model.validation import require

DEVIATION_SHRINKAGE = 5.0
"""Pseudo-ratings, exactly average, that shrink a usual deviation; from 2 to 30 the error changes by under 0.2%."""

Levels = NDArray[np.float64]
Residuals = NDArray[np.float32]
"""How far each review lies above what the bias model expects, in stars."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RatingSums:
    """The ratings of a history: how many, and how far in total they lie above what is usual, in stars.

    ``elsewhere``: how many ratings the user gave in other domains; ``above_usual`` covers both.

    Shape:
        scalars of one history, or (B,) arrays.
    """

    count: float | Levels
    above_usual: float | Levels
    elsewhere: float | Levels = 0.0

    def shrunk_deviation(self, shrinkage: float) -> Levels:
        """Mean deviation from what is usual, shrunk by ``shrinkage`` pseudo-ratings of deviation 0; (B,), in stars."""
        weight = np.asarray(self.count, dtype=np.float64) + np.asarray(self.elsewhere, dtype=np.float64)
        deviation: Levels = np.asarray(self.above_usual) / (weight + shrinkage)
        return deviation


def stack_sums(sums: Sequence[RatingSums]) -> RatingSums:
    """The sums of B histories as arrays, (B,) each."""
    rows = [(history.count, history.above_usual, history.elsewhere) for history in sums]
    count, above_usual, elsewhere = np.array(rows, dtype=np.float64).reshape(len(rows), 3).T
    return RatingSums(count=count, above_usual=above_usual, elsewhere=elsewhere)


@dataclass(frozen=True, kw_only=True, eq=False)
class RatingColumns:
    """R ratings as columns; users and items are rows of two id tables.

    Shape:
        users, items: (R,) int64; ratings, surpluses: (R,), in stars.
    """

    user_ids: IdTable
    item_ids: IdTable
    users: NDArray[np.int64]
    items: NDArray[np.int64]
    ratings: Levels
    surpluses: Levels

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

    def counterparts(self, side: Side) -> tuple[NDArray[np.int64], IdTable]:
        """The other side's rows, (R,), and their table: the items that a user rated, the users who rated an item."""
        return (self.items, self.item_ids) if side is Side.USER else (self.users, self.user_ids)


@dataclass(frozen=True, kw_only=True)
class SideBias:
    """How one side's reviews move the rating of a pair. ``worth``: what a review counts for; ``mean``: the mean of that
    over all known reviews; ``shrinkage``: pseudo-ratings, exactly usual, that shrink a history.
    """

    worth: ReviewWorth
    mean: float
    shrinkage: float

    def __post_init__(self) -> None:
        require(self.shrinkage > 0, "shrinkage", self.shrinkage, "use a positive number of ratings")

    def bias(self, sums: RatingSums) -> Levels:
        """The shrunk mean deviation from what is usual, (B,), in stars; 0 for a stranger."""
        return sums.shrunk_deviation(self.shrinkage)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """From the plain values of its fields."""
        return cls(**{**values, "worth": ReviewWorth.from_json(values["worth"])})


class SideDeviations:
    """Sums up one side's histories, relative to what is usual for each review's counterpart: the item of a user's
    review, the user of an item's.

    A counterpart's usual deviation is ``total share − mean · count share``. The shares are kept apart from the mean
    because a training pair leaves its own rating out of that. They are 0 for strangers.

    Shape:
        usual: (N + 1, 2), total share in stars and count share, by counterpart row.
    """

    def __init__(self, side: Side, worth: ReviewWorth, mean: float, counterparts: IdTable, usual: Levels) -> None:
        self.worth = worth
        self.mean = mean
        self.usual = usual
        self._side = side
        self._counterparts = counterparts
        # An array of Python floats: histories are short, and indexing numpy costs more than the arithmetic.
        self._usual_levels = array("d", (usual[:, 0] + mean * (1.0 - usual[:, 1])).tobytes())

    @classmethod
    def of(cls, side: Side, rated: RatingColumns, worth: ReviewWorth) -> Self:
        """From the ratings that training may read."""
        rows, counterparts = rated.counterparts(side)
        levels = worth.levels(rated.ratings, rated.surpluses)
        sums = _sums_by_row(rows, len(counterparts), levels, np.ones(len(levels)))
        total, count = sums.sum(axis=0).tolist()
        usual = sums / (sums[:, 1:] + DEVIATION_SHRINKAGE)
        usual[0] = 0.0  # strangers
        return cls(side, worth, total / max(1.0, count), counterparts, usual)

    def of_these(self, counterparts: IdTable) -> Self:
        """The same for some of the counterparts."""
        return type(self)(self._side, self.worth, self.mean, counterparts, self._usual_of(counterparts))

    def sum_up(self, reviews: Iterable[ReviewEntry]) -> RatingSums:
        """Sum up one history, by the rating and the surplus of each review."""
        above_usual = self.above_usual(reviews)
        return RatingSums(count=len(above_usual), above_usual=sum(above_usual))

    def without(self, sums: RatingSums, review: ReviewEntry) -> RatingSums:
        """Take one review out of a history's sums: the sums of the others, up to rounding."""
        (above_usual,) = self.above_usual([review])
        return replace(sums, count=np.asarray(sums.count) - 1, above_usual=np.asarray(sums.above_usual) - above_usual)

    def above_usual(self, reviews: Iterable[ReviewEntry]) -> list[float]:
        """How far each review lies above what is usual for its counterpart."""
        worth, counterpart, row, usual = self.worth, self._side.counterpart, self._counterparts.row, self._usual_levels
        return [worth(review.rating, review.surplus) - usual[row(counterpart(review))] for review in reviews]

    def terms_of(self, rows: NDArray[np.int64], levels: Levels, counterparts: IdTable) -> tuple[Levels, Levels]:
        """Level and share of R reviews of worth ``levels``, (R,) each. A review lies ``level − share · mean`` above
        what is usual for its counterpart, where the mean is that of all known reviews, or of all but a pair's own.

        ``rows``: those of the counterparts in the table ``counterparts``, which may be another than this side's.
        """
        usual = (self.usual if counterparts is self._counterparts else self._usual_of(counterparts))[rows]
        return levels - usual[:, 0], 1.0 - usual[:, 1]

    def _usual_of(self, counterparts: IdTable) -> Levels:
        """The rows of ``usual`` of another table's counterparts, (N + 1, 2)."""
        rows = np.concatenate([[0], self._counterparts.rows(counterparts.identifiers)])
        return np.asarray(self.usual[rows])


class ElsewhereRatings:
    """What each known user's ratings in other domains add to the user's side, frozen with the bundle.

    As with usual deviations, the mean is kept apart: together they lie ``total − mean · share`` above what is usual.

    Shape:
        sums: (U + 1, 3), how many ratings there are, their total in stars, and their share of the mean, by user row.
    """

    def __init__(self, users: IdTable, sums: Levels) -> None:
        self.sums = sums
        self._users = users

    @classmethod
    def none(cls, users: IdTable) -> Self:
        """For users without known ratings in other domains."""
        return cls(users, np.zeros((len(users) + 1, 3)))

    @classmethod
    def of(cls, rated: RatingColumns, usual: SideDeviations) -> Self:
        """Each counts as a rating in the target domain does, relative to what is ``usual`` for its item."""
        levels = usual.worth.levels(rated.ratings, rated.surpluses)
        levels, shares = usual.terms_of(rated.items, levels, rated.item_ids)
        sums = _sums_by_row(rated.users, len(rated.user_ids), np.ones(len(levels)), levels, shares)
        sums[0] = 0.0  # strangers
        return cls(rated.user_ids, sums)

    def added(self, user: str, sums: RatingSums, mean: float) -> RatingSums:
        """A user's sums with these ratings added."""
        count, total, share = self.sums[self._users.row(user)].tolist()
        if not count:
            return sums  # not a copy: the service keeps the sums of every list
        return RatingSums(count=sums.count, above_usual=sums.above_usual + (total - share * mean), elsewhere=count)

    def added_to_each(self, users: Iterable[str], sums: RatingSums, means: Levels) -> RatingSums:
        """The same for the sums of B users, (B,) each, and a mean for each, (B,)."""
        count, total, share = self.sums[self._users.rows(users)].T
        return replace(sums, above_usual=np.asarray(sums.above_usual) + (total - share * means), elsewhere=count)


class UsualDeviations:
    """Both sides: users' ratings by what is usual for their items, items' by what is usual for their users."""

    def __init__(self, user: SideDeviations, item: SideDeviations, elsewhere: ElsewhereRatings) -> None:
        self.user = user
        self.item = item
        self.elsewhere = elsewhere

    @classmethod
    def of(
        cls, rated: RatingColumns, user: ReviewWorth, item: ReviewWorth, elsewhere: RatingColumns | None = None
    ) -> Self:
        """From the ratings that training may read, and what a review counts for on the user's and the item's side.

        ``elsewhere``: those by the same table of users in other domains. They tell what is usual as the others do.
        """
        if elsewhere is None:
            none = ElsewhereRatings.none(rated.user_ids)
            return cls(SideDeviations.of(Side.USER, rated, user), SideDeviations.of(Side.ITEM, rated, item), none)
        everything = rated.with_others(elsewhere)
        of_all_items = SideDeviations.of(Side.USER, everything, user)
        return cls(
            of_all_items.of_these(rated.item_ids),
            SideDeviations.of(Side.ITEM, everything, item),
            ElsewhereRatings.of(elsewhere, of_all_items),
        )

    def on(self, side: Side) -> SideDeviations:
        """Those of one side."""
        return self.user if side is Side.USER else self.item

    def sums(self, side: Side, entity: str, reviews: Iterable[ReviewEntry]) -> RatingSums:
        """Sums over the reviews of a user, those in other domains included, or of an item."""
        sums = self.on(side).sum_up(reviews)
        return self.elsewhere.added(entity, sums, self.user.mean) if side is Side.USER else sums

    def residuals(self, side: Side, reviews: Iterable[ReviewEntry], bias: ArrayLike) -> Residuals:
        """How far each rating of a user or an item lies above what the bias model expects: (R,), in stars.

        ``bias``: the entity's, from the history that holds the reviews; what is usual for each counterpart is
        subtracted, too.
        """
        above_usual = self.on(side).above_usual(reviews)
        return (np.asarray(above_usual, dtype=np.float64) - np.asarray(bias, dtype=np.float64)).astype(np.float32)

    def save(self, path: Path) -> None:
        """Write the tables; the worths and means are the bias model's."""
        save_file({"users": self.item.usual, "items": self.user.usual, "elsewhere": self.elsewhere.sums}, path)

    @classmethod
    def load(cls, path: Path, user: SideBias, item: SideBias, *, user_ids: IdTable, item_ids: IdTable) -> Self:
        """Inverse of :meth:`save`. Raises ``BundleError`` for tables that do not fit the identifiers."""
        try:
            tables = load_file(path)
            users, items, elsewhere = tables["users"], tables["items"], tables["elsewhere"]
        except (OSError, KeyError, SafetensorError) as error:
            raise BundleError(f"{path}: {error!r}; export the bundle again") from error
        expected = (len(user_ids) + 1, 2), (len(item_ids) + 1, 2), (len(user_ids) + 1, 3)
        if (users.shape, items.shape, elsewhere.shape) != expected:
            raise BundleError(
                f"{path} holds tables of shape {users.shape}, {items.shape} and {elsewhere.shape} for {len(user_ids)} "
                f"users and {len(item_ids)} items; export the bundle again"
            )
        return cls(
            SideDeviations(Side.USER, user.worth, user.mean, item_ids, items),
            SideDeviations(Side.ITEM, item.worth, item.mean, user_ids, users),
            ElsewhereRatings(user_ids, elsewhere),
        )


def _sums_by_row(rows: NDArray[np.int64], last: int, *columns: Levels) -> Levels:
    """Sum of each column over each row from 0 to ``last``: (last + 1, columns)."""
    return np.stack([np.bincount(rows, column, minlength=last + 1) for column in columns], axis=1)
