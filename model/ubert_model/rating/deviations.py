"""How far the ratings in a history lie from what is usual, so that a rating can be told from its surroundings.

A user who rated three excellent items with five stars is not shown to be generous by it. So the bias model takes
from each rating in a user's history how far its item usually lies from the mean, and from each in an item's history
how far its user does. These usual deviations are frozen with the bundle: they belong to the *other* reviews' items and
users, none of which the target review is of, so that a prediction still reads nothing of its target (law 5).

All of it is reckoned in what ratings count for (:class:`RatingCurve`), which is not the same for a user's habit as for
an item's worth. What pre-training has read of a user in other domains adds to the user's side, each rating there for a
part of one here.
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

from ubert_model.config import require
from ubert_model.errors import BundleError
from ubert_model.ids import IdTable
from ubert_model.rating.curve import RatingCurve
from ubert_model.states.review import ReviewEntry

DEVIATION_SHRINKAGE = 5.0
"""Further ratings, exactly average, that a usual deviation is shrunk by; from 2 to 30 the error moves by under 0.2%."""

Levels = NDArray[np.float64]
Residuals = NDArray[np.float32]
"""How far each of some ratings lies above what the bias model expects, in stars."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RatingSums:
    """The ratings in a history: how many, and how far they lie above what is usual in all, in stars.

    ``elsewhere`` is what those that the user gave in other domains count for, in ratings; ``above_usual`` covers both.

    Shape:
        numbers of one history, or (B,) arrays.
    """

    count: ArrayLike
    above_usual: ArrayLike
    elsewhere: ArrayLike = 0.0

    def shrunk_deviation(self, shrinkage: float) -> Levels:
        """Mean deviation from what is usual, as if ``shrinkage`` further ratings had been exactly that; (B,), stars."""
        weight = np.asarray(self.count, dtype=np.float64) + np.asarray(self.elsewhere, dtype=np.float64)
        deviation: Levels = np.asarray(self.above_usual) / (weight + shrinkage)
        return deviation


def stacked(sums: Sequence[RatingSums]) -> RatingSums:
    """The sums of B histories as arrays, (B,) each."""
    rows = [(one.count, one.above_usual, one.elsewhere) for one in sums]
    count, above_usual, elsewhere = np.array(rows, dtype=np.float64).reshape(len(rows), 3).T
    return RatingSums(count=count, above_usual=above_usual, elsewhere=elsewhere)


@dataclass(frozen=True, kw_only=True, eq=False)
class RatingColumns:
    """R ratings, by the rows of their users and items in two tables.

    Shape:
        users, items: (R,) int64; ratings: (R,), in stars.
    """

    user_ids: IdTable
    item_ids: IdTable
    users: NDArray[np.int64]
    items: NDArray[np.int64]
    ratings: Levels

    @classmethod
    def of(
        cls, users: Iterable[str], items: Iterable[str], ratings: ArrayLike, *, user_ids: IdTable, item_ids: IdTable
    ) -> Self:
        """Of each rating the user and the item, and how many stars it has."""
        return cls(
            user_ids=user_ids,
            item_ids=item_ids,
            users=user_ids.rows(users),
            items=item_ids.rows(items),
            ratings=np.asarray(ratings, dtype=np.float64),
        )


@dataclass(frozen=True, kw_only=True)
class SideBias:
    """How one side's ratings move the rating of a pair: what each counts for, the mean of that over all known ratings,
    and how many further ratings, exactly usual, a history is shrunk by.
    """

    curve: RatingCurve
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
        return cls(**{**values, "curve": RatingCurve.from_json(values["curve"])})


class SideDeviations:
    """Sums up histories of one side, by what is usual for each known counterpart: for each item of a user's ratings.

    A counterpart's usual deviation is ``total share − mean · count share``, told apart from the mean because a pair
    from training leaves its own rating out of that. Both are 0 for strangers.

    Shape:
        usual: (N + 1, 2), total share in stars and count share, by the counterparts' rows.
    """

    def __init__(self, curve: RatingCurve, mean: float, counterparts: IdTable, usual: Levels) -> None:
        self.curve = curve
        self.mean = mean
        self.usual = usual
        self._counterparts = counterparts
        # As Python floats: histories are short, and numpy takes longer to give one number than all that is done to it.
        self._usual_levels = array("d", (usual[:, 0] + mean * (1.0 - usual[:, 1])).tobytes())

    @classmethod
    def of(cls, rows: NDArray[np.int64], ratings: Levels, curve: RatingCurve, counterparts: IdTable) -> Self:
        """Of the ratings that training may read, (R,), each with the row of its counterpart."""
        sums = _summed(rows, len(counterparts), curve.levels(ratings), np.ones(len(ratings)))
        total, count = sums.sum(axis=0).tolist()
        usual = sums / (sums[:, 1:] + DEVIATION_SHRINKAGE)
        usual[0] = 0.0  # strangers
        return cls(curve, total / max(1.0, count), counterparts, usual)

    def sum_up(self, ratings: Iterable[tuple[str, float]]) -> RatingSums:
        """Of one history, each rating with its counterpart."""
        above_usual = self.above_usual(ratings)
        return RatingSums(count=len(above_usual), above_usual=sum(above_usual))

    def less(self, sums: RatingSums, counterpart: str, rating: float) -> RatingSums:
        """Of one history without one of its ratings: what summing up the others gives, but for the last digits."""
        (above_usual,) = self.above_usual([(counterpart, rating)])
        return replace(sums, count=np.asarray(sums.count) - 1, above_usual=np.asarray(sums.above_usual) - above_usual)

    def above_usual(self, ratings: Iterable[tuple[str, float]]) -> list[float]:
        """How far each rating lies above what is usual for its counterpart."""
        curve, row, usual = self.curve, self._counterparts.row, self._usual_levels
        return [curve(rating) - usual[row(counterpart)] for counterpart, rating in ratings]

    def terms_of(self, rows: NDArray[np.int64], ratings: Levels, counterparts: IdTable) -> tuple[Levels, Levels]:
        """Level and share of R ratings, (R,) each. A rating lies ``level − share · mean`` above what is usual for its
        counterpart, by the mean of all known ratings, or of all but a pair's own.

        ``rows``: where the counterparts stand in a table, this side's or another.
        """
        if counterparts is self._counterparts:
            usual = self.usual[rows]
        else:
            usual = self.usual[np.concatenate([[0], self._counterparts.rows(counterparts.identifiers)])[rows]]
        return self.curve.levels(ratings) - usual[:, 0], 1.0 - usual[:, 1]


class ElsewhereRatings:
    """What each known user's ratings in other domains add to the user's side, frozen with the bundle.

    Shape:
        sums: (U + 1, 2), for how many ratings they count and how far these lie above what is usual there, by user row.
    """

    def __init__(self, users: IdTable, sums: Levels) -> None:
        self.sums = sums
        self._users = users

    @classmethod
    def none(cls, users: IdTable) -> Self:
        """Of users of whom no other domain is known."""
        return cls(users, np.zeros((len(users) + 1, 2)))

    @classmethod
    def of(cls, rated: RatingColumns, curve: RatingCurve) -> Self:
        """Each for a whole rating, by what is usual for its item among these ratings."""
        side = SideDeviations.of(rated.items, rated.ratings, curve, rated.item_ids)
        levels, shares = side.terms_of(rated.items, rated.ratings, rated.item_ids)
        sums = _summed(rated.users, len(rated.user_ids), np.ones(len(levels)), levels - shares * side.mean)
        sums[0] = 0.0  # strangers
        return cls(rated.user_ids, sums)

    def weighted(self, weight: float) -> "ElsewhereRatings":
        """Each for that part of a rating."""
        return ElsewhereRatings(self._users, weight * self.sums)

    def added(self, user: str, sums: RatingSums) -> RatingSums:
        """A user's sums with these ratings."""
        count, above_usual = self.sums[self._users.row(user)].tolist()
        if not count:
            return sums  # and no copy of it: the service keeps one for each list
        return RatingSums(count=sums.count, above_usual=sums.above_usual + above_usual, elsewhere=count)

    def added_to_each(self, users: Iterable[str], sums: RatingSums) -> RatingSums:
        """The sums of B users, (B,) each, with theirs."""
        count, above_usual = self.sums[self._users.rows(users)].T
        return replace(sums, above_usual=np.asarray(sums.above_usual) + above_usual, elsewhere=count)


class UsualDeviations:
    """Both sides: users' ratings by what is usual for their items, items' by what is usual for their users."""

    def __init__(self, user: SideDeviations, item: SideDeviations, elsewhere: ElsewhereRatings) -> None:
        self.user = user
        self.item = item
        self.elsewhere = elsewhere

    @classmethod
    def of(
        cls, rated: RatingColumns, curves: tuple[RatingCurve, RatingCurve], elsewhere: ElsewhereRatings | None = None
    ) -> Self:
        """Of the ratings that training may read. ``curves``: of the user's side and of the item's."""
        of_user, of_item = curves
        return cls(
            SideDeviations.of(rated.items, rated.ratings, of_user, rated.item_ids),
            SideDeviations.of(rated.users, rated.ratings, of_item, rated.user_ids),
            elsewhere or ElsewhereRatings.none(rated.user_ids),
        )

    def of_user(self, user: str, reviews: Iterable[ReviewEntry]) -> RatingSums:
        """Sums over a user's reviews."""
        return self.elsewhere.added(user, self.user.sum_up((one.item, one.rating) for one in reviews))

    def of_item(self, item: str, reviews: Iterable[ReviewEntry]) -> RatingSums:  # noqa: ARG002
        """Sums over an item's reviews."""
        return self.item.sum_up((one.user, one.rating) for one in reviews)

    def residuals_of_user(self, reviews: Iterable[ReviewEntry], bias: ArrayLike) -> Residuals:
        """How far each of a user's ratings lies above what the bias model expects: (R,), in stars.

        ``bias``: the user's, by the history that the reviews are of; what is usual for each item is taken off, too.
        """
        return _above(self.user.above_usual((one.item, one.rating) for one in reviews), bias)

    def residuals_of_item(self, reviews: Iterable[ReviewEntry], bias: ArrayLike) -> Residuals:
        """The same of an item's ratings, by the item's bias and what is usual for each user."""
        return _above(self.item.above_usual((one.user, one.rating) for one in reviews), bias)

    def save(self, path: Path) -> None:
        """Write the tables; the curves and means are the bias model's."""
        save_file({"users": self.item.usual, "items": self.user.usual, "elsewhere": self.elsewhere.sums}, path)

    @classmethod
    def load(cls, path: Path, user: SideBias, item: SideBias, *, user_ids: IdTable, item_ids: IdTable) -> Self:
        """Inverse of :meth:`save`. Raises ``BundleError`` unless the tables are those of the identifiers."""
        try:
            tables = load_file(path)
            users, items, elsewhere = tables["users"], tables["items"], tables["elsewhere"]
        except (OSError, KeyError, SafetensorError) as error:
            raise BundleError(f"{path}: {error!r}; export the bundle again") from error
        known = (len(user_ids) + 1, 2)
        if users.shape != known or elsewhere.shape != known or items.shape != (len(item_ids) + 1, 2):
            raise BundleError(
                f"{path} holds {users.shape} and {items.shape} for {len(user_ids)} users and {len(item_ids)} items; "
                "export the bundle again"
            )
        return cls(
            SideDeviations(user.curve, user.mean, item_ids, items),
            SideDeviations(item.curve, item.mean, user_ids, users),
            ElsewhereRatings(user_ids, elsewhere),
        )


def _above(above_usual: Sequence[float], bias: ArrayLike) -> Residuals:
    return (np.asarray(above_usual, dtype=np.float64) - np.asarray(bias, dtype=np.float64)).astype(np.float32)


def _summed(rows: NDArray[np.int64], last: int, first: Levels, second: Levels) -> Levels:
    """What two columns come to by row, in their order: (last + 1, 2)."""
    return np.stack([np.bincount(rows, column, minlength=last + 1) for column in (first, second)], axis=1)
