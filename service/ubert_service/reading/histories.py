"""Which reviews the pairs of a request may read, from the store's review lists."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from typing import Self

from numpy.typing import ArrayLike

from ubert_model.config import ModelConfig
from ubert_model.history import select_history, without_item, without_user
from ubert_model.rating.blend import BiasModel
from ubert_model.rating.deviations import RatingSums, Residuals, SideBias, SideDeviations, UsualDeviations
from ubert_model.states import ReviewEntry
from ubert_service.reading.brought import BroughtReviews


@dataclass(frozen=True, slots=True)
class Pair:
    """A user and an item."""

    user: str
    item: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Which reviews a request reads, as states and as counts: all of the store, unless it says otherwise.

    ``before``: only reviews dated strictly before that second. One without a date (0) is then left out, since
    nothing shows that it had been written. What is brought along is read whatever its date.
    """

    excluded: frozenset[str] = frozenset()
    before: int | None = None
    brought: BroughtReviews | None = None

    def of_store(self, reviews: Sequence[ReviewEntry]) -> list[ReviewEntry]:
        """Those of the store's reviews that are read, in order."""
        return [review for review in reviews if review.review_id not in self.excluded and self._in_time(review)]

    def of_caller(self, user: str) -> list[ReviewEntry]:
        """Those reviews that the request brings along for this user, in order."""
        if self.brought is None or self.brought.user != user:
            return []
        return [review for review in self.brought.entries if review.review_id not in self.excluded]

    def _in_time(self, review: ReviewEntry) -> bool:
        return self.before is None or 0 < review.timestamp < self.before


EVERY_REVIEW = Reading()
_LIST_BYTES = 50
_LINE_BYTES = 121
_LARGEST_SHARED = 256
"""Up to here, Python has each whole number once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What a pair may know of one of its sides: how many ratings there are, what they sum up to, and the reviews whose
    states it reads, with how far each of their ratings lies above what the bias model expects (0 for one without).
    """

    reviews: int
    sums: RatingSums
    selected: tuple[ReviewEntry, ...]
    residuals: Residuals

    @property
    def is_rated(self) -> bool:
        """Is any rating known that tells of it: here, or, of a user, in the domains of pre-training?"""
        return self.reviews > 0 or bool(self.sums.elsewhere)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairHistories:
    """Both sides of a pair, rid of the review that its user wrote on its item (law 5)."""

    pair: Pair
    user: History
    item: History


@dataclass(frozen=True, slots=True, kw_only=True)
class Reckoning:
    """What is done with the reviews of one side: whose they are, how a counterpart's are left out, and what their
    ratings come to. One for all users of a bundle, and one for all items.
    """

    counterpart: Callable[[ReviewEntry], str]
    without: Callable[[Sequence[ReviewEntry], str], list[ReviewEntry]]
    sum_up: Callable[[str, Iterable[ReviewEntry]], RatingSums]
    residuals: Callable[[Iterable[ReviewEntry], ArrayLike], Residuals]
    deviations: SideDeviations
    bias: SideBias

    @classmethod
    def of_users(cls, usual: UsualDeviations, bias: BiasModel) -> Self:
        return cls(
            counterpart=attrgetter("item"),
            without=without_item,
            sum_up=usual.of_user,
            residuals=usual.residuals_of_user,
            deviations=usual.user,
            bias=bias.user,
        )

    @classmethod
    def of_items(cls, usual: UsualDeviations, bias: BiasModel) -> Self:
        return cls(
            counterpart=attrgetter("user"),
            without=without_user,
            sum_up=usual.of_item,
            residuals=usual.residuals_of_item,
            deviations=usual.item,
            bias=bias.item,
        )

    def less(self, sums: RatingSums, review: ReviewEntry) -> RatingSums:
        """The sums of a history without one of its reviews."""
        return self.deviations.less(sums, self.counterpart(review), review.rating)


class ReviewList:
    """One entity's reviews, newest first. Never changes.

    Its history is one and the same for every counterpart that it shares no review with.
    """

    __slots__ = ("_config", "_counterparts", "_entity", "_reckoning", "_reviews", "_unrated", "whole")

    def __init__(
        self,
        entity: str,
        reviews: Sequence[ReviewEntry],
        reckoning: Reckoning,
        counterparts: frozenset[str],
        config: ModelConfig,
        unrated: frozenset[str] = frozenset(),
    ) -> None:
        self._entity = entity
        self._reviews = reviews
        self._reckoning = reckoning
        self._counterparts = counterparts
        self._config = config
        self._unrated = unrated
        self.whole = self._of(reviews)
        """The history with every review."""

    @classmethod
    def of(cls, entity: str, reviews: Sequence[ReviewEntry], reckoning: Reckoning, config: ModelConfig) -> Self:
        """The list of a user or an item, by the reckoning of its side."""
        return cls(entity, reviews, reckoning, frozenset(map(reckoning.counterpart, reviews)), config)

    def read_by(self, reading: Reading) -> Self:
        """The list of those of its reviews that are read."""
        if reading.before is None and not reading.excluded:
            return self
        return self._of_these(reading.of_store(self._reviews))

    def joined_by(self, brought: Sequence[ReviewEntry], unrated: frozenset[str]) -> Self:
        """The list with reviews that a request brings along; one that it holds already is not added again."""
        held = {review.review_id for review in self._reviews}
        added = [review for review in brought if review.review_id not in held]
        counterparts = self._counterparts | {review.item for review in added}
        return type(self)(
            self._entity,
            [*added, *self._reviews],
            self._reckoning,
            counterparts,
            self._config,
            unrated & {review.review_id for review in added},
        )

    def history(self, counterpart: str) -> History:
        """Without what the counterpart shares (law 5)."""
        return self.apart_from(counterpart).whole

    def apart_from(self, counterpart: str) -> Self:
        """The list less what the counterpart shares (law 5)."""
        if counterpart not in self._counterparts:
            return self
        return self._of_these(self._reckoning.without(self._reviews, counterpart))

    def without_each(self, reviews: Iterable[ReviewEntry]) -> Iterator[History]:
        """The history less each of these, which are its own, in turn.

        What one costs does not grow with the list, which is looked through once for all, as far as any of them reads.
        """
        # Whichever is left out, the selection takes max_reviews of the others at most, so never goes beyond these.
        with_rows = (review for review in self._reviews if review.rows)
        head = list(islice(with_rows, self._config.max_reviews + 1))
        for review in reviews:
            selected = self._select([other for other in head if other.review_id != review.review_id])
            rated = review.review_id not in self._unrated
            sums = self._reckoning.less(self.whole.sums, review) if rated else self.whole.sums
            yield self._history(selected, self.whole.reviews - rated, sums)

    @property
    def held_bytes(self) -> int:
        """Memory that it takes: what Python allocates, by tracemalloc, within 5%."""
        # Not the entity's own name, which is one string for all lines.
        lines = sum(
            _LINE_BYTES
            + sys.getsizeof(one.review_id)
            + sys.getsizeof(self._reckoning.counterpart(one))
            + sum(sys.getsizeof(number) for number in (one.timestamp, one.rows) if number > _LARGEST_SHARED)
            for one in self._reviews
        )
        return _LIST_BYTES + sys.getsizeof(self._counterparts) + sys.getsizeof(self.whole.residuals) + lines

    def __iter__(self) -> Iterator[ReviewEntry]:
        return iter(self._reviews)

    def _of_these(self, reviews: Sequence[ReviewEntry]) -> Self:
        return type(self)(self._entity, reviews, self._reckoning, self._counterparts, self._config, self._unrated)

    def _of(self, reviews: Sequence[ReviewEntry]) -> History:
        rated = [review for review in reviews if review.review_id not in self._unrated] if self._unrated else reviews
        return self._history(self._select(reviews), len(rated), self._reckoning.sum_up(self._entity, rated))

    def _select(self, reviews: Sequence[ReviewEntry]) -> list[ReviewEntry]:
        return select_history(reviews, max_reviews=self._config.max_reviews, max_rows=self._config.max_rows)

    def _history(self, selected: Sequence[ReviewEntry], rated: int, sums: RatingSums) -> History:
        reckoning = self._reckoning
        residuals = reckoning.residuals(selected, reckoning.bias.bias(sums))
        if self._unrated:
            residuals[[review.review_id in self._unrated for review in selected]] = 0.0
        return History(reviews=rated, sums=sums, selected=tuple(selected), residuals=residuals)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewLists:
    """The lists of some users and some items."""

    users: Mapping[str, ReviewList]
    items: Mapping[str, ReviewList]

    def read_by(self, reading: Reading) -> "ReviewLists":
        """What a request reads of them."""
        users = {user: reviews.read_by(reading) for user, reviews in self.users.items()}
        brought = reading.brought
        if brought is not None and brought.user in users:
            users[brought.user] = users[brought.user].joined_by(reading.of_caller(brought.user), brought.unrated)
        return ReviewLists(users=users, items={item: reviews.read_by(reading) for item, reviews in self.items.items()})

    def histories(self, pair: Pair) -> PairHistories:
        """Both sides of a pair of theirs."""
        return PairHistories(
            pair=pair,
            user=self.users[pair.user].history(pair.item),
            item=self.items[pair.item].history(pair.user),
        )
