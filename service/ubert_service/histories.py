"""Which reviews the pairs of a request may read, from the store's review lists."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from ubert_model.config import ModelConfig
from ubert_model.deviations import RatingSums, UsualDeviations
from ubert_model.history import select_history, without_item, without_user
from ubert_model.states import ReviewEntry


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
_LIST_BYTES = 50
_LINE_BYTES = 275


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What a pair may know of one of its sides: how many reviews there are, what their ratings sum up to, and those
    whose states it reads.
    """

    reviews: int
    sums: RatingSums
    selected: tuple[ReviewEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairHistories:
    """Both sides of a pair, rid of the review that its user wrote on its item (law 5)."""

    pair: Pair
    user: History
    item: History


_Without = Callable[[Sequence[ReviewEntry], str], list[ReviewEntry]]
_SumUp = Callable[[Sequence[ReviewEntry]], RatingSums]


class ReviewList:
    """One entity's reviews, newest first. Never changes.

    Its history is one and the same for every counterpart that it shares no review with.
    """

    __slots__ = ("_config", "_counterparts", "_reviews", "_sum_up", "_without", "whole")

    def __init__(
        self,
        reviews: Sequence[ReviewEntry],
        without: _Without,
        sum_up: _SumUp,
        counterparts: frozenset[str],
        config: ModelConfig,
    ) -> None:
        self._reviews = reviews
        self._without = without
        self._sum_up = sum_up
        self._counterparts = counterparts
        self._config = config
        self.whole = self._of(reviews)
        """The history with every review."""

    @classmethod
    def of_user(cls, reviews: Sequence[ReviewEntry], usual: UsualDeviations, config: ModelConfig) -> Self:
        return cls(reviews, without_item, usual.of_user, frozenset(review.item for review in reviews), config)

    @classmethod
    def of_item(cls, reviews: Sequence[ReviewEntry], usual: UsualDeviations, config: ModelConfig) -> Self:
        return cls(reviews, without_user, usual.of_item, frozenset(review.user for review in reviews), config)

    def passed(self, readable: ReviewFilter) -> Self:
        """The list of those reviews that may be read."""
        if readable == EVERY_REVIEW:
            return self
        passed = readable.passed(self._reviews)
        return type(self)(passed, self._without, self._sum_up, self._counterparts, self._config)

    def history(self, counterpart: str) -> History:
        """Without what the counterpart shares (law 5)."""
        if counterpart in self._counterparts:
            return self._of(self._without(self._reviews, counterpart))
        return self.whole

    @property
    def held_bytes(self) -> int:
        """Memory that it takes: what Python allocates, by tracemalloc, within 5%."""
        lines = sum(_LINE_BYTES + len(one.review_id) + len(one.item) for one in self._reviews)
        return _LIST_BYTES + sys.getsizeof(self._counterparts) + lines

    def __iter__(self) -> Iterator[ReviewEntry]:
        return iter(self._reviews)

    def _of(self, reviews: Sequence[ReviewEntry]) -> History:
        selected = select_history(reviews, max_reviews=self._config.max_reviews, max_tokens=self._config.max_tokens)
        return History(reviews=len(reviews), sums=self._sum_up(reviews), selected=tuple(selected))
