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
from ubert_model.rating import Floats
from ubert_model.rating.worth import ReviewWorth
from ubert_model.review import ReviewEntry, Side
from ubert_model.validation import require

Residuals = NDArray[np.float32]
"""How far each review lies above what the bias model expects, in stars."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RatingSums:
    """The ratings of a history: how many, and how far in total they lie above what is usual, in stars.

    ``elsewhere``: how many ratings the user gave in other domains; ``above_usual`` covers both.

    Shape:
        scalars of one history, or (B,) arrays.
    """

    count: float | Floats
    above_usual: float | Floats
    elsewhere: float | Floats = 0.0

    def shrunk_deviation(self, shrinkage: float) -> Floats:
        """Mean deviation from what is usual, shrunk by ``shrinkage`` pseudo-ratings of deviation 0; (B,), in stars."""
        weight = np.asarray(self.count, dtype=np.float64) + np.asarray(self.elsewhere, dtype=np.float64)
        deviation: Floats = np.asarray(self.above_usual) / (weight + shrinkage)
        return deviation


def stack_sums(sums: Sequence[RatingSums]) -> RatingSums:
    """The sums of B histories as arrays, (B,) each."""
    rows = [(history.count, history.above_usual, history.elsewhere) for history in sums]
    count, above_usual, elsewhere = np.array(rows, dtype=np.float64).reshape(len(rows), 3).T
    return RatingSums(count=count, above_usual=above_usual, elsewhere=elsewhere)


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

    def bias(self, sums: RatingSums) -> Floats:
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

    def __init__(self, side: Side, worth: ReviewWorth, mean: float, counterparts: IdTable, usual: Floats) -> None:
        self.worth = worth
        self.mean = mean
        self.usual = usual
        self.side = side
        self.counterparts = counterparts
        # An array of Python floats: histories are short, and indexing numpy costs more than the arithmetic.
        self._usual_worths = array("d", (usual[:, 0] + mean * (1.0 - usual[:, 1])).tobytes())

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
        worth, counterpart, row, usual = self.worth, self.side.counterpart, self.counterparts.row, self._usual_worths
        return [worth(review.rating, review.surplus) - usual[row(counterpart(review))] for review in reviews]


class ElsewhereRatings:
    """What each known user's ratings in other domains add to the user's side, frozen with the bundle.

    As with usual deviations, the mean is kept apart: together they lie ``total − mean · share`` above what is usual.

    Shape:
        sums: (U + 1, 3), how many ratings there are, their total in stars, and their share of the mean, by user row.
    """

    def __init__(self, users: IdTable, sums: Floats) -> None:
        self.sums = sums
        self.users = users

    def added(self, user: str, sums: RatingSums, mean: float) -> RatingSums:
        """A user's sums with these ratings added."""
        count, total, share = self.sums[self.users.row(user)].tolist()
        if not count:
            return sums  # not a copy: the service keeps the sums of every list
        return RatingSums(count=sums.count, above_usual=sums.above_usual + (total - share * mean), elsewhere=count)


class UsualDeviations:
    """Both sides: users' ratings by what is usual for their items, items' by what is usual for their users."""

    def __init__(self, user: SideDeviations, item: SideDeviations, elsewhere: ElsewhereRatings) -> None:
        self.user = user
        self.item = item
        self.elsewhere = elsewhere

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
