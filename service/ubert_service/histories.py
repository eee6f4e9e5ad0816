"""Which reviews the pairs of a request may read, from the store's review lists."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ubert_model.config import ModelConfig
from ubert_model.history import RatingCounts, select_history, without_item, without_user
from ubert_model.states import ReviewEntry, StateStore


@dataclass(frozen=True, slots=True)
class Pair:
    """A user and an item."""

    user: str
    item: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewFilter:
    """Which reviews a request may read, as states and as counts: all, unless it says otherwise.

    ``before``: only reviews dated strictly before that second. One without a date (0) is then left out, since
    nothing shows that it had been written.
    """

    excluded: frozenset[str] = frozenset()
    before: int | None = None

    def passed(self, reviews: Sequence[ReviewEntry]) -> list[ReviewEntry]:
        """The reviews that may be read, in order."""
        return [review for review in reviews if review.review_id not in self.excluded and self._in_time(review)]

    def _in_time(self, review: ReviewEntry) -> bool:
        return self.before is None or 0 < review.timestamp < self.before


EVERY_REVIEW = ReviewFilter()


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What a pair may know of one of its sides: rating counts over all reviews, and those whose states it reads."""

    counts: RatingCounts
    selected: tuple[ReviewEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairHistories:
    """Both sides of a pair, rid of the review that its user wrote on its item (law 5)."""

    pair: Pair
    user: History
    item: History


class _ReviewList:
    """One entity's reviews. Its history is one and the same for every counterpart that it shares no review with."""

    def __init__(
        self,
        reviews: Sequence[ReviewEntry],
        without: Callable[[Sequence[ReviewEntry], str], list[ReviewEntry]],
        counterparts: frozenset[str],
        config: ModelConfig,
    ) -> None:
        self._reviews = reviews
        self._without = without
        self._counterparts = counterparts
        self._config = config

    def history(self, counterpart: str) -> History:
        if counterpart in self._counterparts:
            return self._of(self._without(self._reviews, counterpart))
        return self._whole

    @cached_property
    def _whole(self) -> History:
        return self._of(self._reviews)

    def _of(self, reviews: Sequence[ReviewEntry]) -> History:
        selected = select_history(reviews, max_reviews=self._config.max_reviews, max_tokens=self._config.max_tokens)
        return History(counts=RatingCounts.of(reviews), selected=tuple(selected))


def read_histories(
    store: StateStore, version: str, pairs: Sequence[Pair], config: ModelConfig, readable: ReviewFilter
) -> list[PairHistories]:
    """The histories of all pairs, in one round trip."""
    users = list(dict.fromkeys(pair.user for pair in pairs))
    items = list(dict.fromkeys(pair.item for pair in pairs))
    user_lists, item_lists = store.review_lists(version, users=users, items=items)
    of_user = {
        user: _ReviewList(readable.passed(reviews), without_item, frozenset(review.item for review in reviews), config)
        for user, reviews in zip(users, user_lists, strict=True)
    }
    of_item = {
        item: _ReviewList(readable.passed(reviews), without_user, frozenset(review.user for review in reviews), config)
        for item, reviews in zip(items, item_lists, strict=True)
    }
    return [
        PairHistories(pair=pair, user=of_user[pair.user].history(pair.item), item=of_item[pair.item].history(pair.user))
        for pair in pairs
    ]
