"""What ratings are usual for each known user and item, so that a rating can be told from its surroundings.

A user who rated three excellent items with five stars is not shown to be generous by it. So the bias model takes
from each rating in a user's history how far its item usually lies from the mean, and from each in an item's history
how far its user does. These usual deviations are frozen with the bundle: they belong to the *other* reviews' items and
users, none of which the target review is of, so that a prediction still reads nothing of its target (law 5).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ubert_model.errors import BundleError
from ubert_model.ids import IdTable
from ubert_model.states.review import ReviewEntry

DEVIATION_SHRINKAGE = 5.0
"""Further ratings, exactly average, that a usual deviation is shrunk by; from 2 to 30 the error moves by under 0.2%."""

Levels = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class RatingSums:
    """The ratings in a history, each less the usual deviation of its item (or user): all that a bias needs.

    A usual deviation is ``total share − mean · count share``, so it is told apart from the mean, which a pair from
    training must leave itself out of: ``total`` is the sum of the ratings less their total shares, in stars,
    ``mean_weight`` the sum of 1 − count share. Then ``total − mean_weight · mean`` sums up what is left of the ratings.

    Shape:
        numbers of one history, or (B,) arrays.
    """

    count: ArrayLike
    total: ArrayLike
    mean_weight: ArrayLike

    def shrunk_deviation(self, mean: ArrayLike, shrinkage: float) -> Levels:
        """Mean deviation from what is usual, as if ``shrinkage`` further ratings had been exactly that; (B,), stars."""
        left = np.asarray(self.total, dtype=np.float64) - np.asarray(self.mean_weight) * np.asarray(mean)
        deviation: Levels = left / (np.asarray(self.count, dtype=np.float64) + shrinkage)
        return deviation


def stacked(sums: Sequence[RatingSums]) -> RatingSums:
    """The sums of B histories as arrays, (B,) each."""
    return RatingSums(
        count=np.array([one.count for one in sums], dtype=np.float64),
        total=np.array([one.total for one in sums], dtype=np.float64),
        mean_weight=np.array([one.mean_weight for one in sums], dtype=np.float64),
    )


class UsualDeviations:
    """Total share and count share of every known user and item; both 0 for strangers.

    Shape:
        users: (U + 1, 2), items: (I + 1, 2), by the rows of their identifier tables.
    """

    def __init__(self, user_ids: IdTable, users: Levels, item_ids: IdTable, items: Levels) -> None:
        self._user_ids = user_ids
        self._users = users
        self._item_ids = item_ids
        self._items = items

    @classmethod
    def of(cls, reviews: Iterable[ReviewEntry], *, user_ids: IdTable, item_ids: IdTable) -> "UsualDeviations":
        """Of the reviews that training may read."""
        users, items = np.zeros((len(user_ids) + 1, 2)), np.zeros((len(item_ids) + 1, 2))
        for review in reviews:
            users[user_ids.row(review.user)] += (review.rating, 1.0)
            items[item_ids.row(review.item)] += (review.rating, 1.0)
        return cls(user_ids, _shrunk(users), item_ids, _shrunk(items))

    def of_user(self, reviews: Iterable[ReviewEntry]) -> RatingSums:
        """Sums over a user's reviews, each less what is usual for its item."""
        return _sums((review.rating, self._items[self._item_ids.row(review.item)]) for review in reviews)

    def of_item(self, reviews: Iterable[ReviewEntry]) -> RatingSums:
        """Sums over an item's reviews, each less what is usual for its user."""
        return _sums((review.rating, self._users[self._user_ids.row(review.user)]) for review in reviews)

    def save(self, path: Path) -> None:
        """Write both tables."""
        save_file({"users": self._users, "items": self._items}, path)

    @classmethod
    def load(cls, path: Path, *, user_ids: IdTable, item_ids: IdTable) -> "UsualDeviations":
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
        return cls(user_ids, users, item_ids, items)


def _shrunk(sums: Levels) -> Levels:
    """Totals and counts, (N, 2), divided by the shrunk count; row 0, of strangers, is none of theirs."""
    shares: Levels = sums / (sums[:, 1:] + DEVIATION_SHRINKAGE)
    shares[0] = 0.0
    return shares


def _sums(ratings: Iterable[tuple[float, Levels]]) -> RatingSums:
    count, total, mean_weight = 0, 0.0, 0.0
    for rating, (total_share, count_share) in ratings:
        count += 1
        total += rating - float(total_share)
        mean_weight += 1.0 - float(count_share)
    return RatingSums(count=count, total=total, mean_weight=mean_weight)
