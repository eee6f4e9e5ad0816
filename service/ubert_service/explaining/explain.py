"""Explains a rating: its additive parts in stars, the leave-one-out effect of each review, and the attention."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from ubert_model.errors import StoreUnavailableError
from ubert_model.rating.blend import Blend
from ubert_model.review import ReviewEntry, Side
from ubert_model.states import FloatMatrix
from ubert_service.explaining.explainer_graph import OutputDecomposer, PairParts
from ubert_service.explaining.listed import listed_reviews
from ubert_service.explaining.review_texts import NO_WORDS, ReadText, ReviewTexts
from ubert_service.reading.histories import EVERY_REVIEW, Pair, PairHistories, Reading
from ubert_service.resident.residents import Residents
from ubert_service.scoring.engine import Prediction, ScoringEngine
from ubert_service.scoring.evidence import Evidence
from ubert_service.work.cancellation import Cancelled, never_cancelled, raise_if_cancelled


@dataclass(frozen=True, slots=True, kw_only=True)
class Contributions:
    """The parts of a rating in stars; they add up to it."""

    mean: float
    user_bias: float
    item_bias: float
    identity_and_summary: float
    matching: float
    clipped: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewEvidence:
    """What one review contributes to a rating. ``effect``: the rating less what it would be without the review.

    ``token_contributions``, one per row of its states, is empty if it was not read. ``text`` None: none is stored.
    """

    entry: ReviewEntry
    side: Side
    rated: bool
    effect: float
    token_contributions: Sequence[float]
    text: ReadText | None

    @property
    def matching(self) -> float:
        """The sum of its tokens' contributions."""
        return float(sum(self.token_contributions))


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatMap:
    """Figure 5 for two reviews of Lu and Li rows: the share of Eq. 12's attention that each pays to the other."""

    user_review_id: str
    item_review_id: str
    user_attention: FloatMatrix  # (Lu, Li)
    item_attention: FloatMatrix  # (Li, Lu)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A prediction and its explanation; reviews are newest first, the user's before the item's.

    ``user_unlisted``, ``item_unlisted``: how many more reviews of each side count.
    ``texts_unavailable``: the store, which holds the texts, is away; so only texts sent with the request are there.
    """

    prediction: Prediction
    contributions: Contributions
    reviews: Sequence[ReviewEvidence]
    user_unlisted: int
    item_unlisted: int
    texts_unavailable: bool
    heat_map: HeatMap | None


class Explainer:
    """Explains the ratings of one engine. Thread-safe and stateless."""

    def __init__(
        self,
        *,
        blend: Blend,
        engine: ScoringEngine,
        residents: Residents,
        decomposer: OutputDecomposer,
        texts: ReviewTexts,
    ) -> None:
        self._blend = blend
        self._engine = engine
        self._residents = residents
        self._decomposer = decomposer
        self._texts = texts

    def explain(
        self, pair: Pair, reading: Reading = EVERY_REVIEW, cancelled: Cancelled = never_cancelled
    ) -> Explanation:
        """Rate a pair, then rate it again without each of its reviews in turn (leave-one-out).

        Raises as :meth:`ScoringEngine.score` does.
        """
        lists = self._residents.read([pair]).read_by(reading)
        user = lists.users[pair.user].without_counterpart(pair.item)
        item = lists.items[pair.item].without_counterpart(pair.user)
        histories = PairHistories(pair=pair, user=user.full_history, item=item.full_history)
        of_user, of_item = list(listed_reviews(user)), list(listed_reviews(item))
        listed = [*((Side.USER, entry) for entry in of_user), *((Side.ITEM, entry) for entry in of_item)]
        # No review is on both sides: the only ones that could be, those of the pair itself, are left out (law 5).
        without_user = (replace(histories, user=without) for without in user.leave_one_out(of_user))
        without_item = (replace(histories, item=without) for without in item.leave_one_out(of_item))
        texts, unavailable = self._texts_of(listed, reading)
        raise_if_cancelled(cancelled)
        # Gathered once, so that a review removed meanwhile is in the rating and all its parts, or in none.
        gathered, states = self._engine.gather([histories, *without_user, *without_item], reading.inline)
        prediction, *others = self._engine.rate_gathered(gathered, states, cancelled)
        effects = [prediction.rating - other.rating for other in others]
        evidence = gathered[0]
        parts = self._decomposer.decompose(self._engine.batch([evidence], states)) if evidence.basis == "full" else None
        by_token = self._by_token(evidence, states, parts)
        unrated = reading.inline.unrated if reading.inline else frozenset()
        return Explanation(
            prediction=prediction,
            contributions=self._contributions(prediction, evidence, parts),
            reviews=[
                ReviewEvidence(
                    entry=entry,
                    side=side,
                    rated=entry.review_id not in unrated,
                    effect=effect,
                    token_contributions=by_token.get(entry.review_id, ()),
                    text=texts.get(entry.review_id),
                )
                for (side, entry), effect in zip(listed, effects, strict=True)
            ],
            user_unlisted=user.full_history.reviews - sum(entry.review_id not in unrated for entry in of_user),
            item_unlisted=item.full_history.reviews - len(of_item),
            texts_unavailable=unavailable,
            heat_map=None if parts is None else _heat_map(evidence, states, parts, texts),
        )

    def _texts_of(
        self, listed: Sequence[tuple[Side, ReviewEntry]], reading: Reading
    ) -> tuple[dict[str, ReadText], bool]:
        """The texts of the listed reviews, and whether those in the store could not be read."""
        inline = {} if reading.inline is None else reading.inline.texts
        texts = {review_id: self._texts.as_read(text) for review_id, text in inline.items()}
        if not self._texts.keeps:
            return texts, False
        try:
            self._residents.require_store()
            stored = self._texts.read([entry.review_id for _, entry in listed if entry.review_id not in inline])
        except StoreUnavailableError:  # the rating needs no text
            return texts, True
        return texts | stored, False

    def _contributions(self, prediction: Prediction, evidence: Evidence, parts: PairParts | None) -> Contributions:
        blend = self._blend
        bias = blend.bias.parts(evidence.histories.user.sums, evidence.histories.item.sums)
        bias_share = blend.bias_share(readable=parts is not None)
        matching = identity = 0.0
        if parts is not None:
            identity = blend.weight * parts.identity_and_summary
            matching = blend.weight * float(parts.user_contributions.sum() + parts.item_contributions.sum())
        mean, user_bias, item_bias = (bias_share * float(part) for part in bias)
        total = mean + user_bias + item_bias + identity + matching
        scale = blend.scale
        return Contributions(
            mean=mean,
            user_bias=user_bias,
            item_bias=item_bias,
            identity_and_summary=identity,
            matching=matching,
            clipped=0.0 if scale.lowest <= total <= scale.highest else prediction.rating - total,
        )

    def _by_token(
        self, evidence: Evidence, states: Mapping[str, FloatMatrix], parts: PairParts | None
    ) -> dict[str, Sequence[float]]:
        """The contribution of each row of each review that was read, in stars, by review id."""
        if parts is None:
            return {}
        sides = ((evidence.user, parts.user_contributions), (evidence.item, parts.item_contributions))
        return {
            name: (self._blend.weight * contributions[rows].astype(np.float64)).tolist()
            for read, contributions in sides
            for name, rows in _rows(read, states)
        }


def _rows(read: Sequence[ReviewEntry], states: Mapping[str, FloatMatrix]) -> Iterator[tuple[str, slice]]:
    """The id of each review of one side in order, and its rows among those of the side."""
    start = 0
    for review in read:
        end = start + len(states[review.review_id])
        yield review.review_id, slice(start, end)
        start = end


def _heat_map(
    evidence: Evidence, states: Mapping[str, FloatMatrix], parts: PairParts, texts: Mapping[str, ReadText]
) -> HeatMap:
    """The two reviews whose words attend most to each other: the largest sum of products of both attentions."""
    of_user, of_item = list(_rows(evidence.user, states)), list(_rows(evidence.item, states))
    mutual = parts.user_attention * parts.item_attention.T  # (Nu, Ni)
    mutual[_wordless(of_user, texts)] = 0.0
    mutual[:, _wordless(of_item, texts)] = 0.0
    (user, user_rows), (item, item_rows) = max(
        product(of_user, of_item),
        key=lambda reviews: float(mutual[reviews[0][1], reviews[1][1]].sum()),
    )
    return HeatMap(
        user_review_id=user,
        item_review_id=item,
        user_attention=parts.user_attention[user_rows, item_rows],
        item_attention=parts.item_attention[item_rows, user_rows],
    )


def _wordless(reviews: Sequence[tuple[str, slice]], texts: Mapping[str, ReadText]) -> list[int]:
    """The rows that stand for special tokens alone; of a review without a text only the first, [CLS], is known."""
    return [
        row
        for name, rows in reviews
        for row, span in zip(
            range(rows.start, rows.stop), texts[name].spans if name in texts else [NO_WORDS], strict=False
        )
        if span == NO_WORDS
    ]
