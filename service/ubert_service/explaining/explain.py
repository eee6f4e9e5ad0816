"""Why a pair is rated as it is: the rating's parts in stars, what each review does to it, and who attends to whom."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ubert_model.bundle import Manifest
from ubert_model.states import FloatMatrix, ReviewEntry, Side
from ubert_service.explaining.explainer_graph import OutputParting, PairParts
from ubert_service.explaining.listed import listed_reviews
from ubert_service.explaining.review_texts import ReadText, ReviewTexts
from ubert_service.reading.histories import EVERY_REVIEW, Pair, PairHistories, Reading
from ubert_service.resident.residents import Residents
from ubert_service.scoring.engine import Prediction, ScoringEngine
from ubert_service.scoring.evidence import Evidence
from ubert_service.work.wanted import Wanted, always, go_on_if


@dataclass(frozen=True, slots=True, kw_only=True)
class Contributions:
    """The parts of a rating in stars; together they are the rating."""

    mean: float
    user_bias: float
    item_bias: float
    identity_and_summary: float
    matching: float
    clipped: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewEvidence:
    """What one review does to a rating. ``token_contributions`` (rows of its states) is empty if it was not read;
    ``text`` None: none is kept.
    """

    entry: ReviewEntry
    side: Side
    rated: bool
    effect: float
    token_contributions: Sequence[float]
    text: ReadText | None

    @property
    def matching(self) -> float:
        """What its tokens contribute together."""
        return float(sum(self.token_contributions))


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatMap:
    """Figure 5 for two reviews of Lu and Li rows: the part of Eq. 12's softmax rows that falls on the other review."""

    user_review_id: str
    item_review_id: str
    user_attention: FloatMatrix  # (Lu, Li)
    item_attention: FloatMatrix  # (Li, Lu)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A prediction and what it comes from; reviews newest first, the user's before the item's."""

    prediction: Prediction
    contributions: Contributions
    reviews: Sequence[ReviewEvidence]
    heat_map: HeatMap | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _ReadReview:
    """A review that the network has read, and the rows of its side that are its own."""

    entry: ReviewEntry
    rows: slice


class Explainer:
    """Explains the ratings of one engine. Thread-safe, keeps nothing between calls."""

    def __init__(
        self,
        *,
        manifest: Manifest,
        engine: ScoringEngine,
        residents: Residents,
        parting: OutputParting,
        texts: ReviewTexts,
    ) -> None:
        self._manifest = manifest
        self._engine = engine
        self._residents = residents
        self._parting = parting
        self._texts = texts

    def explain(self, pair: Pair, reading: Reading = EVERY_REVIEW, wanted: Wanted = always) -> Explanation:
        """Rate a pair, and rate it again without each of its reviews, as long as the explanation is ``wanted``.

        Raises as :meth:`ScoringEngine.score` does.
        """
        lists = self._residents.read([pair]).read_by(reading)
        user, item = lists.users[pair.user].apart_from(pair.item), lists.items[pair.item].apart_from(pair.user)
        histories = PairHistories(pair=pair, user=user.whole, item=item.whole)
        of_user, of_item = list(listed_reviews(user)), list(listed_reviews(item))
        listed = [*((Side.USER, entry) for entry in of_user), *((Side.ITEM, entry) for entry in of_item)]
        # A review stands on one side only: the one that stands on both is the pair's own, and is on neither (law 5).
        without_user = (replace(histories, user=less) for less in user.without_each(of_user))
        without_item = (replace(histories, item=less) for less in item.without_each(of_item))
        texts = self._texts_of(listed, reading)
        go_on_if(wanted)
        # Once for all, so that a review removed meanwhile is in the rating and in its parts, or in neither.
        gathered, states = self._engine.gather([histories, *without_user, *without_item], reading.brought)
        prediction, *others = self._engine.rate_gathered(gathered, states, wanted)
        effects = [prediction.rating - other.rating for other in others]
        evidence = gathered[0]
        parts = self._parting.part(self._engine.batch([evidence], states)) if evidence.basis == "full" else None
        unrated = reading.brought.unrated if reading.brought else frozenset()
        return Explanation(
            prediction=prediction,
            contributions=self._contributions(prediction, evidence, parts),
            reviews=[
                ReviewEvidence(
                    entry=entry,
                    side=side,
                    rated=entry.review_id not in unrated,
                    effect=effect,
                    token_contributions=tokens,
                    text=texts.get(entry.review_id),
                )
                for (side, entry), effect, tokens in zip(
                    listed, effects, self._by_token(listed, evidence, states, parts), strict=True
                )
            ],
            heat_map=None if parts is None else _heat_map(evidence, states, parts),
        )

    def _texts_of(self, listed: Sequence[tuple[Side, ReviewEntry]], reading: Reading) -> dict[str, ReadText]:
        own = {} if reading.brought is None else reading.brought.texts
        if self._texts.in_store:
            self._residents.require_store()
        found = self._texts.read([entry.review_id for _, entry in listed if entry.review_id not in own])
        return {**found, **{review_id: self._texts.spread(text) for review_id, text in own.items()}}

    @property
    def _network_share(self) -> float:
        return self._manifest.blend_weight

    def _contributions(self, prediction: Prediction, evidence: Evidence, parts: PairParts | None) -> Contributions:
        bias = self._manifest.bias.parts(evidence.histories.user.sums, evidence.histories.item.sums)
        # A network that does not predict above the bias model takes its share from it.
        kept = 1.0 if parts is None or self._manifest.config.above_bias else 1.0 - self._network_share
        matching = identity = 0.0
        if parts is not None:
            identity = self._network_share * parts.identity_and_summary
            matching = self._network_share * float(parts.user_contributions.sum() + parts.item_contributions.sum())
        mean, user_bias, item_bias = (kept * float(part) for part in bias)
        total = mean + user_bias + item_bias + identity + matching
        scale = self._manifest.config.scale
        return Contributions(
            mean=mean,
            user_bias=user_bias,
            item_bias=item_bias,
            identity_and_summary=identity,
            matching=matching,
            clipped=0.0 if scale.lowest <= total <= scale.highest else prediction.rating - total,
        )

    def _by_token(
        self,
        listed: Sequence[tuple[Side, ReviewEntry]],
        evidence: Evidence,
        states: Mapping[str, FloatMatrix],
        parts: PairParts | None,
    ) -> Iterator[Sequence[float]]:
        """What each row of each listed review contributes, in stars; nothing of one that was not read."""
        shares: dict[str, Sequence[float]] = {}
        if parts is not None:
            for read, contributions in (
                (evidence.user, parts.user_contributions),
                (evidence.item, parts.item_contributions),
            ):
                for review in _rows(read, states):
                    weighted = self._network_share * contributions[review.rows].astype(np.float64)
                    shares[review.entry.review_id] = weighted.tolist()
        return (shares.get(entry.review_id, ()) for _, entry in listed)


def _rows(read: Sequence[ReviewEntry], states: Mapping[str, FloatMatrix]) -> Iterator[_ReadReview]:
    """The reviews of one side, each with its rows among those of the side."""
    start = 0
    for review in read:
        end = start + len(states[review.review_id])
        yield _ReadReview(entry=review, rows=slice(start, end))
        start = end


def _heat_map(evidence: Evidence, states: Mapping[str, FloatMatrix], parts: PairParts) -> HeatMap:
    """The two reviews whose tokens attend most to each other, both ways: Σ of the products of both attentions."""
    mutual = parts.user_attention * parts.item_attention.T  # (Nu, Ni)
    user, item = max(
        ((one, other) for one in _rows(evidence.user, states) for other in _rows(evidence.item, states)),
        key=lambda two: float(mutual[two[0].rows, two[1].rows].sum()),
    )
    return HeatMap(
        user_review_id=user.entry.review_id,
        item_review_id=item.entry.review_id,
        user_attention=parts.user_attention[user.rows, item.rows],
        item_attention=parts.item_attention[item.rows, user.rows],
    )
