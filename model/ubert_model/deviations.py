"""How far the ratings in a history lie from what is usual, so that a rating can be told from its surroundings.

A user who rated three excellent items with five stars is not shown to be generous by it. So the bias model takes
from each rating in a user's history how far its item usually lies from the mean, and from each in an item's history
how far its user does. These usual deviations are frozen with the bundle: they belong to the *other* reviews' items and
users, none of which the target review is of, so that a prediction still reads nothing of its target (law 5).

All of it is reckoned in what ratings count for (:class:`RatingCurve`), which is not the same for a user's habit as for
an item's worth.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ubert_model.config import require
from ubert_model.errors import BundleError
from ubert_model.ids import IdTable
from ubert_model.rating_curve import RatingCurve
from ubert_model.states.review import ReviewEntry

DEVIATION_SHRINKAGE = 5.0
"""Further ratings, exactly average, that a usual deviation is shrunk by; from 2 to 30 the error moves by under 0.2%."""

Levels = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class RatingSums:
    """The ratings in a history: how many, and how far they lie above what is usual in all, in stars.

    Shape:
        numbers of one history, or (B,) arrays.
    """

    count: ArrayLike
    above_usual: ArrayLike

    def shrunk_deviation(self, shrinkage: float) -> Levels:
        """Mean deviation from what is usual, as if ``shrinkage`` further ratings had been exactly that; (B,), stars."""
        deviation: Levels = np.asarray(self.above_usual) / (np.asarray(self.count, dtype=np.float64) + shrinkage)
        return deviation


def stacked(sums: Sequence[RatingSums]) -> RatingSums:
    """The sums of B histories as arrays, (B,) each."""
    return RatingSums(
        count=np.array([one.count for one in sums], dtype=np.float64),
        above_usual=np.array([one.above_usual for one in sums], dtype=np.float64),
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

    @classmethod
    def of(cls, ratings: Iterable[tuple[str, float]], curve: RatingCurve, counterparts: IdTable) -> Self:
        """Of the ratings that training may read, each with its counterpart."""
        sums = np.zeros((len(counterparts) + 1, 2))
        for counterpart, rating in ratings:
            sums[counterparts.row(counterpart)] += (curve(rating), 1.0)
        total, count = sums.sum(axis=0).tolist()
        usual = sums / (sums[:, 1:] + DEVIATION_SHRINKAGE)
        usual[0] = 0.0  # strangers
        return cls(curve, total / max(1.0, count), counterparts, usual)

    def sum_up(self, ratings: Iterable[tuple[str, float]], mean: float | None = None) -> RatingSums:
        """Of one history, each rating with its counterpart.

        ``mean`` replaces the one over all known ratings where the target review has to leave it, too.
        """
        centre = self.mean if mean is None else mean
        count, above_usual = 0, 0.0
        for counterpart, rating in ratings:
            total_share, count_share = self.usual[self._counterparts.row(counterpart)]
            count += 1
            above_usual += self.curve(rating) - float(total_share) - (1.0 - float(count_share)) * centre
        return RatingSums(count=count, above_usual=above_usual)


class UsualDeviations:
    """Both sides: users' ratings by what is usual for their items, items' by what is usual for their users."""

    def __init__(self, user: SideDeviations, item: SideDeviations) -> None:
        self.user = user
        self.item = item

    @classmethod
    def of(
        cls,
        reviews: Sequence[ReviewEntry],
        *,
        curves: tuple[RatingCurve, RatingCurve],
        user_ids: IdTable,
        item_ids: IdTable,
    ) -> Self:
        """Of the reviews that training may read. ``curves``: of the user's side and of the item's."""
        of_user, of_item = curves
        return cls(
            SideDeviations.of(((one.item, one.rating) for one in reviews), of_user, item_ids),
            SideDeviations.of(((one.user, one.rating) for one in reviews), of_item, user_ids),
        )

    def of_user(self, reviews: Iterable[ReviewEntry], mean: float | None = None) -> RatingSums:
        """Sums over a user's reviews; ``mean`` as for :meth:`SideDeviations.sum_up`."""
        return self.user.sum_up(((review.item, review.rating) for review in reviews), mean)

    def of_item(self, reviews: Iterable[ReviewEntry], mean: float | None = None) -> RatingSums:
        """Sums over an item's reviews; ``mean`` likewise."""
        return self.item.sum_up(((review.user, review.rating) for review in reviews), mean)

    def save(self, path: Path) -> None:
        """Write both tables; the curves and means are the bias model's."""
        save_file({"users": self.item.usual, "items": self.user.usual}, path)

    @classmethod
    def load(cls, path: Path, user: SideBias, item: SideBias, *, user_ids: IdTable, item_ids: IdTable) -> Self:
        """Inverse of :meth:`save`. Raises ``BundleError`` unless the tables are those of the identifiers."""
        try:
            tables = load_file(path)
            users, items = tables["users"], tables["items"]
        except (OSError, KeyError, SafetensorError) as error:
            raise BundleError(f"{path}: {error!r}; export the bundle again") from error
        if users.shape != (len(user_ids) + 1, 2) or items.shape != (len(item_ids) + 1, 2):
            raise BundleError(
                f"{path} holds {users.shape} and {items.shape} for {len(user_ids)} users and {len(item_ids)} items; "
                "export the bundle again"
            )
        return cls(
            SideDeviations(user.curve, user.mean, item_ids, items),
            SideDeviations(item.curve, item.mean, user_ids, users),
        )
