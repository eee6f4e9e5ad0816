"""The scoring engine: pairs in, predictions out, whatever route or batch they come from."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ubert_model.bundle import Manifest
from ubert_model.errors import BundleError
from ubert_model.ids import Identities
from ubert_model.rating.blend import Ratings, blend
from ubert_model.rating.deviations import stacked
from ubert_model.states import FloatMatrix
from ubert_service.reading.brought import BroughtReviews
from ubert_service.reading.histories import EVERY_REVIEW, Pair, PairHistories, Reading
from ubert_service.resident.residents import Residents
from ubert_service.scoring.assembly import BatchSide, ScorerBatch, token_count
from ubert_service.scoring.batching import PairTokens, plan_batches
from ubert_service.scoring.evidence import Basis, Evidence, Reason
from ubert_service.scoring.runtime import ScoringRuntime
from ubert_service.work.wanted import Wanted, always, go_on_if

_BATCH_TOKENS = 4 * 1024
"""Tokens of one scoring call. Where D = 64 and one thread computes, 1,024 to 16,384 cost the same within 7%."""
_FETCHED_FLOATS = 64 * 1024 * 1024
"""256 MiB of fp32 states are held at a time; candidates beyond that cost another round trip, not more memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A rating in stars, and what it was made from; ``ubert_service.schemas`` says what each field means."""

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
    """Rates pairs by one bundle and the reviews of one store. Thread-safe; itself keeps nothing between calls."""

    def __init__(
        self,
        *,
        manifest: Manifest,
        identities: Identities,
        residents: Residents,
        runtime: ScoringRuntime,
        batch_tokens: int = _BATCH_TOKENS,
        fetched_floats: int = _FETCHED_FLOATS,
    ) -> None:
        self._manifest = manifest
        self._identities = identities
        self._residents = residents
        self._runtime = runtime
        self._batch_tokens = batch_tokens
        self._fetched_tokens = fetched_floats // manifest.state_dim

    def score(
        self, pairs: Sequence[Pair], reading: Reading = EVERY_REVIEW, wanted: Wanted = always
    ) -> list[Prediction]:
        """A prediction for each pair, in order; a pair's prediction never depends on the others.

        It is the one that a store holding nothing but the reviews of the ``reading`` would give.

        Raises ``StoreError``, ``StateError``, ``DeviceUnavailableError`` or ``BundleError``, and ``WithdrawnError``
        once the predictions are ``wanted`` no longer.
        """
        distinct = list(dict.fromkeys(pairs))
        lists = self._residents.read(distinct).read_by(reading)
        histories = [lists.histories(pair) for pair in distinct]
        predictions = dict(zip(distinct, self.rate(histories, reading.brought, wanted), strict=True))
        return [predictions[pair] for pair in pairs]

    def reviewed_items(self, user: str, reading: Reading = EVERY_REVIEW) -> frozenset[str]:
        """The items of the user's reviews, as far as they are read. Raises ``StoreError`` and ``StateError``."""
        (reviews,) = self._residents.review_lists([user], [])
        return frozenset(review.item for review in (*reviews.read_by(reading), *reading.of_caller(user)))

    def rate(
        self,
        histories: Sequence[PairHistories],
        brought: BroughtReviews | None = None,
        wanted: Wanted = always,
    ) -> list[Prediction]:
        """A prediction for each pair of histories, in order, ``brought`` being what the store has not of them.

        Raises as :meth:`score` does.
        """
        return [
            prediction
            for together in _fetches(histories, self._fetched_tokens)
            for prediction in self._rate_together(together, brought, wanted)
        ]

    def gather(
        self, histories: Sequence[PairHistories], brought: BroughtReviews | None = None
    ) -> tuple[list[Evidence], Mapping[str, FloatMatrix]]:
        """What there is of the states that some pairs select. Raises ``StoreError`` and ``StateError``."""
        own = {} if brought is None else brought.states
        review_ids = (review.review_id for pair in histories for review in (*pair.user.selected, *pair.item.selected))
        states = {**self._residents.states(one for one in review_ids if one not in own), **own}
        return [Evidence.of(pair, states) for pair in histories], states

    def rate_gathered(
        self, evidence: Sequence[Evidence], states: Mapping[str, FloatMatrix], wanted: Wanted = always
    ) -> list[Prediction]:
        """A prediction for each piece of evidence, in order, from these states alone: no store is asked again.

        Raises ``DeviceUnavailableError``, ``BundleError`` or ``WithdrawnError`` as :meth:`score` does.
        """
        ratings = self._ratings(evidence, states, wanted)
        intervals = self._manifest.intervals
        counts = [one.histories.user.reviews for one in evidence]
        low, high = intervals.around(ratings, counts, self._manifest.config.scale)
        columns = zip(evidence, ratings.tolist(), low.tolist(), high.tolist(), strict=True)
        return [self._prediction(*row) for row in columns]

    def _rate_together(
        self, histories: Sequence[PairHistories], brought: BroughtReviews | None, wanted: Wanted
    ) -> list[Prediction]:
        """Predictions for pairs whose states fit into memory together."""
        go_on_if(wanted)
        return self.rate_gathered(*self.gather(histories, brought), wanted)

    def _ratings(self, evidence: Sequence[Evidence], states: Mapping[str, FloatMatrix], wanted: Wanted) -> Ratings:
        """Ratings in stars, (P,): the bias model, and above it what the network has to say."""
        bias = self._manifest.bias.rate(
            stacked([one.histories.user.sums for one in evidence]),
            stacked([one.histories.item.sums for one in evidence]),
        )
        above_bias = self._manifest.config.above_bias
        # Where the network cannot be asked, it adds nothing to the bias model.
        outputs = np.zeros_like(bias) if above_bias else bias.copy()
        for positions, rated in self._network_outputs(evidence, states, wanted):
            outputs[positions] = rated
        if not np.isfinite(outputs).all():
            pair = evidence[int(np.isfinite(outputs).argmin())].histories.pair
            raise BundleError(f"the network's output for {pair} is not finite; export the bundle again")
        return blend(
            bias,
            outputs,
            weight=self._manifest.blend_weight,
            above_bias=above_bias,
            scale=self._manifest.config.scale,
        )

    def _network_outputs(
        self, evidence: Sequence[Evidence], states: Mapping[str, FloatMatrix], wanted: Wanted
    ) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
        """Positions of pairs with the network's outputs for them, batch by batch."""
        readable = [position for position, one in enumerate(evidence) if one.basis == "full"]
        tokens = [
            PairTokens(
                user_side=_user_side(evidence[position]),
                user=token_count(evidence[position].user, states),
                item=token_count(evidence[position].item, states),
            )
            for position in readable
        ]
        for batch in plan_batches(tokens, budget=self._batch_tokens):
            go_on_if(wanted)
            positions = [readable[index] for index in batch]
            yield positions, self._runtime.score(self.batch([evidence[position] for position in positions], states))

    def batch(self, evidence: Sequence[Evidence], states: Mapping[str, FloatMatrix]) -> ScorerBatch:
        """The network's inputs for some pairs; a user side that all share is there once."""
        users = evidence[:1] if len({_user_side(one) for one in evidence}) == 1 else evidence
        items = [one.histories.pair.item for one in evidence]
        return ScorerBatch(
            user=np.array([self._identities.users.row(one.histories.pair.user) for one in users], dtype=np.int64),
            item=np.array([self._identities.items.row(item) for item in items], dtype=np.int64),
            domain=np.array([self._identities.domain_row(item) for item in items], dtype=np.int64),
            user_side=BatchSide.of([one.user for one in users], [one.user_residuals for one in users], states),
            item_side=BatchSide.of([one.item for one in evidence], [one.item_residuals for one in evidence], states),
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
    """Consecutive pairs whose distinct reviews have at most ``budget`` tokens, unless one pair alone has more."""
    together: list[PairHistories] = []
    wanted: set[str] = set()
    tokens = 0
    for pair in histories:
        reviews = {review.review_id: review.rows for review in (*pair.user.selected, *pair.item.selected)}
        added = sum(rows for review_id, rows in reviews.items() if review_id not in wanted)
        if together and tokens + added > budget:
            yield together
            together, wanted, tokens, added = [], set(), 0, sum(reviews.values())
        together.append(pair)
        wanted.update(reviews)  # in place, which ``|=`` of a view of keys is not
        tokens += added
    if together:
        yield together


def _user_side(evidence: Evidence) -> Hashable:
    """What the network reads of the user: a user who has reviewed the candidate reads without that review, and the
    others' ratings are measured against a bias without it.
    """
    reviews = tuple(review.review_id for review in evidence.user)
    return evidence.histories.pair.user, reviews, evidence.user_residuals.tobytes()
