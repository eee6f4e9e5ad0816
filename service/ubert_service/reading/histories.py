"""Which reviews of the store's lists the pairs of a request read, and what their ratings add up to."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Self

from ubert_model.config import ModelConfig
from ubert_model.history import select_history, without_counterpart
from ubert_model.rating.blend import BiasModel
from ubert_model.rating.deviations import RatingSums, Residuals, UsualDeviations
from ubert_model.review import ReviewEntry, Side
from ubert_service.reading.inline import InlineReviews


@dataclass(frozen=True, slots=True)
class Pair:
    """A user and an item."""

    user: str
    item: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Which reviews a request reads and counts: by default, every review in the store.

    ``excluded``: review ids to leave out. ``before``: only stored reviews dated strictly before that second; undated
    ones (0) are left out, since nothing shows that they existed. ``inline`` reviews are read whatever their date.
    """

    excluded: frozenset[str] = frozenset()
    before: int | None = None
    inline: InlineReviews | None = None

    def select(self, reviews: Sequence[ReviewEntry]) -> list[ReviewEntry]:
        """The stored reviews that the request reads, in order."""
        return [review for review in reviews if review.review_id not in self.excluded and self._in_time(review)]

    def inline_of(self, user: str) -> list[ReviewEntry]:
        """The inline reviews of this user that the request reads, in order."""
        if self.inline is None or self.inline.user != user:
            return []
        return [review for review in self.inline.entries if review.review_id not in self.excluded]

    def _in_time(self, review: ReviewEntry) -> bool:
        return self.before is None or 0 < review.timestamp < self.before


EVERY_REVIEW = Reading()
_LIST_BYTES = 50
_ENTRY_BYTES = 164
"""Python 3.14 takes some 20 more than 3.11 does; this is between them."""
_LARGEST_CACHED_INT = 256
"""Python keeps one object for each integer up to here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """One side of a pair: the count of its ratings, their sums, and the reviews whose states are read.

    ``residuals``: how far each selected review lies above what the bias model expects; 0 for one without a rating.
    """

    reviews: int
    sums: RatingSums
    selected: tuple[ReviewEntry, ...]
    residuals: Residuals

    @property
    def is_rated(self) -> bool:
        """Is any rating known: in this domain or, for a user, in those of pre-training?"""
        return self.reviews > 0 or bool(self.sums.elsewhere)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairHistories:
    """Both sides of a pair, without the reviews that its user wrote on its item (law 5)."""

    pair: Pair
    user: History
    item: History


@dataclass(frozen=True, slots=True)
class SideStatistics:
    """The rating statistics of one side, users or items, under one bundle."""

    side: Side
    usual: UsualDeviations
    bias: BiasModel

    def sums(self, entity: str, reviews: Iterable[ReviewEntry]) -> RatingSums:
        """The sums of a history."""
        return self.usual.sums(self.side, entity, reviews)

    def sums_without(self, sums: RatingSums, review: ReviewEntry) -> RatingSums:
        """A history's sums less one of its reviews."""
        return self.usual.on(self.side).without(sums, review)

    def residuals(self, sums: RatingSums, reviews: Iterable[ReviewEntry]) -> Residuals:
        """How far these reviews lie above what the history's sums let expect."""
        return self.usual.residuals(self.side, reviews, self.bias.on(self.side).bias(sums))


class ReviewList:
    """One entity's reviews, newest first. Immutable.

    All counterparts that share no review with it get the same history object, ``full_history``.
    """

    __slots__ = ("_config", "_counterparts", "_entity", "_reviews", "_statistics", "_unrated", "full_history")

    def __init__(
        self,
        entity: str,
        reviews: Sequence[ReviewEntry],
        statistics: SideStatistics,
        counterparts: frozenset[str],
        config: ModelConfig,
        unrated: frozenset[str] = frozenset(),
    ) -> None:
        self._entity = entity
        self._reviews = reviews
        self._statistics = statistics
        self._counterparts = counterparts
        self._config = config
        self._unrated = unrated
        self.full_history = self._of(reviews)
        """The history with every review."""

    @classmethod
    def of(cls, entity: str, reviews: Sequence[ReviewEntry], statistics: SideStatistics, config: ModelConfig) -> Self:
        """The list of a user or an item, by the ``statistics`` of its side."""
        return cls(entity, reviews, statistics, frozenset(map(statistics.side.counterpart, reviews)), config)

    def read_by(self, reading: Reading) -> Self:
        """The list of those reviews that a request reads."""
        if reading.before is None and not reading.excluded:
            return self
        return self._subset(reading.select(self._reviews))

    def with_inline(self, inline: Sequence[ReviewEntry], unrated: frozenset[str]) -> Self:
        """The list with inline reviews added before the stored ones, less those that it already holds."""
        held = {review.review_id for review in self._reviews}
        added = [review for review in inline if review.review_id not in held]
        counterparts = self._counterparts | {review.item for review in added}
        return type(self)(
            self._entity,
            [*added, *self._reviews],
            self._statistics,
            counterparts,
            self._config,
            unrated & {review.review_id for review in added},
        )

    def without_counterpart(self, counterpart: str) -> Self:
        """The list less the reviews shared with a counterpart (law 5)."""
        if counterpart not in self._counterparts:
            return self
        return self._subset(without_counterpart(self._statistics.side, self._reviews, counterpart))

    def leave_one_out(self, reviews: Iterable[ReviewEntry]) -> Iterator[History]:
        """Leave-one-out: for each of these reviews of the list, the history without it.

        One pass over the head of the list serves all of them, so the cost of each does not grow with the list.
        """
        # Whichever is left out, max_reviews of the others at most are selected, so none beyond these.
        with_rows = (review for review in self._reviews if review.rows)
        head = list(islice(with_rows, self._config.max_reviews + 1))
        for review in reviews:
            selected = self._select([other for other in head if other.review_id != review.review_id])
            rated = review.review_id not in self._unrated
            sums = self._statistics.sums_without(self.full_history.sums, review) if rated else self.full_history.sums
            yield self._history(selected, self.full_history.reviews - rated, sums)

    @property
    def held_bytes(self) -> int:
        """Memory that it takes, within 5% of what tracemalloc sees Python allocate."""
        # Without the entity's own name, which is one string shared by all entries.
        entries = sum(
            _ENTRY_BYTES
            + sys.getsizeof(review.review_id)
            + sys.getsizeof(self._statistics.side.counterpart(review))
            + sum(sys.getsizeof(number) for number in (review.timestamp, review.rows) if number > _LARGEST_CACHED_INT)
            for review in self._reviews
        )
        return _LIST_BYTES + sys.getsizeof(self._counterparts) + sys.getsizeof(self.full_history.residuals) + entries

    def __iter__(self) -> Iterator[ReviewEntry]:
        return iter(self._reviews)

    def _subset(self, reviews: Sequence[ReviewEntry]) -> Self:
        return type(self)(self._entity, reviews, self._statistics, self._counterparts, self._config, self._unrated)

    def _of(self, reviews: Sequence[ReviewEntry]) -> History:
        rated = [review for review in reviews if review.review_id not in self._unrated] if self._unrated else reviews
        return self._history(self._select(reviews), len(rated), self._statistics.sums(self._entity, rated))

    def _select(self, reviews: Sequence[ReviewEntry]) -> list[ReviewEntry]:
        return select_history(reviews, max_reviews=self._config.max_reviews, max_rows=self._config.max_rows)

    def _history(self, selected: Sequence[ReviewEntry], rated: int, sums: RatingSums) -> History:
        residuals = self._statistics.residuals(sums, selected)
        if self._unrated:
            residuals[[review.review_id in self._unrated for review in selected]] = 0.0
        return History(reviews=rated, sums=sums, selected=tuple(selected), residuals=residuals)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewLists:
    """The review lists of some users and items."""

    users: Mapping[str, ReviewList]
    items: Mapping[str, ReviewList]

    def read_by(self, reading: Reading) -> "ReviewLists":
        """The lists that a request reads, inline reviews included."""
        users = {user: reviews.read_by(reading) for user, reviews in self.users.items()}
        inline = reading.inline
        if inline is not None and inline.user in users:
            users[inline.user] = users[inline.user].with_inline(reading.inline_of(inline.user), inline.unrated)
        return ReviewLists(users=users, items={item: reviews.read_by(reading) for item, reviews in self.items.items()})

    def histories(self, pair: Pair) -> PairHistories:
        """Both sides of a pair, whose user and item must be among these."""
        return PairHistories(
            pair=pair,
            user=self.users[pair.user].without_counterpart(pair.item).full_history,
            item=self.items[pair.item].without_counterpart(pair.user).full_history,
        )
