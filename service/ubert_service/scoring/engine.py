"""The scoring engine: pairs in, predictions out, for every route and batch."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from ubert_model.bundle import Manifest
from ubert_model.errors import BundleError
from ubert_model.ids import Identities
from ubert_model.rating import Floats
from ubert_model.rating.deviations import stack_sums
from ubert_model.states import FloatMatrix
from ubert_service.reading.histories import EVERY_REVIEW, Pair, PairHistories, Reading, ReviewList
from ubert_service.reading.inline import InlineReviews
from ubert_service.resident.residents import Residents
from ubert_service.schemas import Basis, Reason
from ubert_service.scoring.assembly import BatchSide, ScorerBatch, token_count
from ubert_service.scoring.batching import PairTokens, plan_batches
from ubert_service.scoring.evidence import Evidence
from ubert_service.scoring.runtime import ScoringRuntime
from ubert_service.work.cancellation import Cancelled, never_cancelled, raise_if_cancelled

_BATCH_TOKENS = 4 * 1024
"""Tokens of one scoring call. Where D = 64 and one thread computes, 1,024 to 16,384 cost the same within 7%."""
_PAIRS_READ = 256
"""Lists are read for so many pairs at a time: whole lists of 10,000 popular items would take gigabytes."""
_FETCHED_FLOATS = 64 * 1024 * 1024
"""At most 256 MiB of fp32 states are held at a time; more candidates cost further round trips, not more memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A rating in stars and what it was made from; ``ubert_service.schemas`` documents each field."""

    pair: Pair
    rating: float
    low: float
    high: float
    basis: Basis
    reasons: tuple[Reason, ...]
    user_reviews: int
    item_reviews: int
    user_tokens: int
    item_tokens: int
    missing_states: int
    user_known: bool
    item_known: bool


class ScoringEngine:
    """Rates pairs with one bundle and the reviews of one store. Thread-safe and stateless."""

    def __init__(
        self,
        *,
        manifest: Manifest,
        identities: Identities,
        residents: Residents,
        runtime: ScoringRuntime,
        pairs_read: int = _PAIRS_READ,
        batch_tokens: int = _BATCH_TOKENS,
        fetched_floats: int = _FETCHED_FLOATS,
    ) -> None:
        self._blend = manifest.blend
        self._intervals = manifest.intervals
        self._identities = identities
        self._residents = residents
        self._runtime = runtime
        self._pairs_read = pairs_read
        self._batch_tokens = batch_tokens
        self._fetched_tokens = fetched_floats // manifest.state_dim

    def score(
        self,
        pairs: Sequence[Pair],
        reading: Reading = EVERY_REVIEW,
        cancelled: Cancelled = never_cancelled,
        users: dict[str, ReviewList] | None = None,
    ) -> list[Prediction]:
        """A prediction for each pair, in order; a pair's prediction never depends on the others.

        Each equals the prediction of a store that holds only the reviews of the ``reading``. ``users``: the lists of
        users that earlier calls have read, to which this one adds; so all calls see one state of each user.

        Raises ``StoreError``, ``StateError``, ``DeviceUnavailableError`` or ``BundleError``, and ``WorkCancelledError``
        once ``cancelled``.
        """
        distinct = list(dict.fromkeys(pairs))
        histories = list(self._histories(distinct, reading, cancelled, {} if users is None else users))
        predictions = dict(zip(distinct, self.rate(histories, reading.inline, cancelled), strict=True))
        return [predictions[pair] for pair in pairs]

    def reviewed_items(self, user: str, reading: Reading = EVERY_REVIEW) -> frozenset[str]:
        """The items of the user's reviews that are read. Raises ``StoreError`` and ``StateError``."""
        (reviews,) = self._residents.review_lists([user], [])
        return frozenset(review.item for review in (*reviews.read_by(reading), *reading.inline_of(user)))

    def rate(
        self,
        histories: Sequence[PairHistories],
        inline: InlineReviews | None = None,
        cancelled: Cancelled = never_cancelled,
    ) -> list[Prediction]:
        """A prediction for each pair of histories, in order; ``inline`` holds the states that are not in the store.

        Raises as :meth:`score` does.
        """
        predictions: list[Prediction] = []
        for group in _fetches(histories, self._fetched_tokens):
            raise_if_cancelled(cancelled)
            predictions += self.rate_gathered(*self.gather(group, inline), cancelled)
        return predictions

    def gather(
        self, histories: Sequence[PairHistories], inline: InlineReviews | None = None
    ) -> tuple[list[Evidence], Mapping[str, FloatMatrix]]:
        """The evidence of each pair, and the states it rests on. Raises ``StoreError`` and ``StateError``."""
        own = {} if inline is None else inline.states
        selected = (review.review_id for pair in histories for review in (*pair.user.selected, *pair.item.selected))
        states = {**self._residents.states(review_id for review_id in selected if review_id not in own), **own}
        return [Evidence.of(pair, states) for pair in histories], states

    def rate_gathered(
        self, evidence: Sequence[Evidence], states: Mapping[str, FloatMatrix], cancelled: Cancelled = never_cancelled
    ) -> list[Prediction]:
        """A prediction for each piece of evidence, in order, from these states alone: the store is not asked.

        Raises ``DeviceUnavailableError``, ``BundleError`` or ``WorkCancelledError`` as :meth:`score` does.
        """
        ratings = self._ratings(evidence, states, cancelled)
        counts = [pair.histories.user.reviews for pair in evidence]
        low, high = self._intervals.around(ratings, counts, self._blend.scale)
        columns = zip(evidence, ratings.tolist(), low.tolist(), high.tolist(), strict=True)
        return [self._prediction(*row) for row in columns]

    def _histories(
        self, pairs: Sequence[Pair], reading: Reading, cancelled: Cancelled, users: dict[str, ReviewList]
    ) -> Iterator[PairHistories]:
        for first in range(0, len(pairs), self._pairs_read):
            raise_if_cancelled(cancelled)
            some = pairs[first : first + self._pairs_read]
            lists = self._residents.read(some, users)
            users |= lists.users  # each user's list is read once, whatever is written meanwhile
            yield from map(lists.read_by(reading).histories, some)

    def _ratings(self, evidence: Sequence[Evidence], states: Mapping[str, FloatMatrix], cancelled: Cancelled) -> Floats:
        """Ratings of P pairs in stars, (P,): the bias model blended with the network."""
        readable = np.array([pair.basis == "full" for pair in evidence], dtype=np.bool_)
        outputs = np.zeros(len(evidence))
        outputs[readable] = self._network_outputs(list(compress(evidence, readable)), states, cancelled)
        return self._blend.rate(
            stack_sums([pair.histories.user.sums for pair in evidence]),
            stack_sums([pair.histories.item.sums for pair in evidence]),
            outputs,
            readable,
        )

    def _network_outputs(
        self, evidence: Sequence[Evidence], states: Mapping[str, FloatMatrix], cancelled: Cancelled
    ) -> NDArray[np.float32]:
        """The network's outputs for pairs that it can read, (P,)."""
        tokens = [
            PairTokens(
                user_side=_user_side(pair),
                user=token_count(pair.user, states),
                item=token_count(pair.item, states),
            )
            for pair in evidence
        ]
        outputs = np.zeros(len(evidence), dtype=np.float32)
        for batch in plan_batches(tokens, budget=self._batch_tokens):
            raise_if_cancelled(cancelled)
            outputs[batch] = self._runtime.score(self.batch([evidence[index] for index in batch], states))
        if not np.isfinite(outputs).all():
            pair = evidence[int(np.isfinite(outputs).argmin())].histories.pair
            raise BundleError(f"the network's output for {pair} is not finite; export the bundle again")
        return outputs

    def batch(self, evidence: Sequence[Evidence], states: Mapping[str, FloatMatrix]) -> ScorerBatch:
        """The network's inputs for some pairs; a user side that all of them share is stored once."""
        users = evidence[:1] if len({_user_side(pair) for pair in evidence}) == 1 else evidence
        items = [pair.histories.pair.item for pair in evidence]
        return ScorerBatch(
            user=np.array([self._identities.users.row(user.histories.pair.user) for user in users], dtype=np.int64),
            item=np.array([self._identities.items.row(item) for item in items], dtype=np.int64),
            domain=np.array([self._identities.domain_row(item) for item in items], dtype=np.int64),
            user_side=BatchSide.of([user.user for user in users], [user.user_residuals for user in users], states),
            item_side=BatchSide.of(
                [each.item for each in evidence], [each.item_residuals for each in evidence], states
            ),
        )

    def _prediction(self, evidence: Evidence, rating: float, low: float, high: float) -> Prediction:
        pair = evidence.histories.pair
        return Prediction(
            pair=pair,
            rating=rating,
            low=low,
            high=high,
            basis=evidence.basis,
            reasons=evidence.reasons,
            user_reviews=len(evidence.user),
            item_reviews=len(evidence.item),
            user_tokens=sum(review.rows for review in evidence.user),
            item_tokens=sum(review.rows for review in evidence.item),
            missing_states=evidence.missing_states,
            user_known=pair.user in self._identities.users,
            item_known=pair.item in self._identities.items,
        )


def _fetches(histories: Sequence[PairHistories], budget: int) -> Iterator[list[PairHistories]]:
    """Runs of consecutive pairs whose distinct reviews have at most ``budget`` tokens, or single larger pairs."""
    group: list[PairHistories] = []
    fetched: set[str] = set()
    tokens = 0
    for pair in histories:
        reviews = {review.review_id: review.rows for review in (*pair.user.selected, *pair.item.selected)}
        added = sum(rows for review_id, rows in reviews.items() if review_id not in fetched)
        if group and tokens + added > budget:
            yield group
            group, fetched, tokens, added = [], set(), 0, sum(reviews.values())
        group.append(pair)
        fetched.update(reviews)  # in place: ``|=`` with a view of keys would copy the set
        tokens += added
    if group:
        yield group


def _user_side(evidence: Evidence) -> Hashable:
    """What the network reads of the user. For a user who has reviewed the candidate, that review is left out, and the
    other ratings' residuals are relative to a bias without it.
    """
    reviews = tuple(review.review_id for review in evidence.user)
    return evidence.histories.pair.user, reviews, evidence.user_residuals.tobytes()
