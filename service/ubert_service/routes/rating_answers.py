"""What the answers of ``/predict``, ``/rank`` and ``/explain`` say of a prediction, and of an explanation."""

from dataclasses import asdict
from typing import Any

from ubert_service.explaining.explain import Explanation, ReviewEvidence
from ubert_service.schemas import AttentionMap, ExplainedReview, Interval, RatingParts
from ubert_service.scoring.engine import Prediction


def prediction_fields(prediction: Prediction, coverage: float) -> dict[str, Any]:
    """The fields of a ``PairPrediction``; ``coverage`` is that of its interval."""
    return {
        "user": prediction.pair.user,
        "item": prediction.pair.item,
        "rating": prediction.rating,
        "interval": Interval(low=prediction.low, high=prediction.high, coverage=coverage),
        "basis": prediction.basis,
        "reasons": list(prediction.reasons),
        "user_reviews": prediction.user_reviews,
        "item_reviews": prediction.item_reviews,
        "user_tokens": prediction.user_tokens,
        "item_tokens": prediction.item_tokens,
        "missing_states": prediction.missing_states,
        "user_known": prediction.user_known,
        "item_known": prediction.item_known,
    }


def evidence_fields(explanation: Explanation) -> dict[str, Any]:
    """The fields of a ``RatingEvidence``."""
    heat_map = explanation.heat_map
    return {
        "contributions": RatingParts(**asdict(explanation.contributions)),
        "reviews": [_explained(review) for review in explanation.reviews],
        "user_unlisted": explanation.user_unlisted,
        "item_unlisted": explanation.item_unlisted,
        "texts_unavailable": explanation.texts_unavailable,
        "heat_map": None
        if heat_map is None
        else AttentionMap(
            user_review_id=heat_map.user_review_id,
            item_review_id=heat_map.item_review_id,
            user_attention=heat_map.user_attention.tolist(),
            item_attention=heat_map.item_attention.tolist(),
        ),
    }


def _explained(review: ReviewEvidence) -> ExplainedReview:
    entry = review.entry
    return ExplainedReview(
        review_id=entry.review_id,
        side=review.side.value,
        user=entry.user,
        item=entry.item or None,
        rating=entry.rating if review.rated else None,
        timestamp=entry.timestamp,
        tokens=entry.rows,
        effect=review.effect,
        matching=review.matching,
        text=None if review.text is None else review.text.text,
        token_spans=None if review.text is None else list(review.text.spans),
        token_contributions=list(review.token_contributions),
    )
