"""Where a rating comes from: what ``/explain`` answers, and ``/predict`` if it is asked to."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ubert_service.explaining.listed import LISTED_UNREAD
from ubert_service.schemas.common import Answer

if TYPE_CHECKING:
    from ubert_service.explaining.explain import Explanation, ReviewEvidence


class RatingParts(Answer):
    """The parts of a rating in stars. All of them together are the rating."""

    mean: float = Field(description="The mean of all training ratings, with the intercept of the bias model.")
    user_bias: float = Field(description="How far the user's ratings lie from it, by their count.")
    item_bias: float = Field(description="How far the item's ratings lie from it, by their count.")
    identity_and_summary: float = Field(
        description="What the network makes of user and item and of each one's reviews by themselves, by its share."
    )
    matching: float = Field(
        description="What the network makes of the reviews and their ratings matched with each other, by its share."
    )
    clipped: float = Field(description="What keeps the sum of the others within the scale; 0 where it lies within.")


class ExplainedReview(Answer):
    """A review that the rating rests on."""

    review_id: str
    side: Literal["user", "item"] = Field(description="Whether it is read as the user's or as the item's.")
    user: str
    item: str | None = Field(description="Null only for a text of `user_texts` that names none.")
    rating: float | None = Field(description="In stars. Null only for a text of `user_texts` that has none.")
    timestamp: int = Field(description="Unix seconds, 0: unknown.")
    tokens: int = Field(description="Rows of its states; 0: without words.")
    effect: float = Field(
        description=(
            "The rating less what it is without this review, its text and its rating: computed by rating again. An "
            "older review may then be read in its place."
        )
    )
    matching: float = Field(description="What its tokens contribute to `matching`, in stars; 0 if it was not read.")
    text: str | None = Field(description="As far as the encoder reads it; null where the store keeps no texts.")
    token_spans: list[tuple[int, int]] | None = Field(
        description=(
            "For each row of its states where its words begin and end in `text`, in code points; `[0, 0]` "
            "for a special token. Null without `text`."
        )
    )
    token_contributions: list[float] = Field(
        description="Stars for each row of its states. They add up to `matching`; empty if it was not read."
    )


class AttentionMap(Answer):
    """The two reviews whose tokens attend most to each other, both ways (Figure 5 of the paper)."""

    user_review_id: str
    item_review_id: str
    user_attention: list[list[float]] = Field(
        description=(
            "A row a token of the user's review: which share of its attention (Eq. 12, over all of the item's reviews) "
            "falls on each token of the item's review."
        )
    )
    item_attention: list[list[float]] = Field(description="The same from the item's review to the user's.")


class RatingEvidence(Answer):
    """Where the rating of a pair comes from."""

    contributions: RatingParts
    reviews: list[ExplainedReview] = Field(
        description=(
            f"All that were read, and of those that only count the newest {LISTED_UNREAD} a side; newest first, the "
            "user's before the item's."
        )
    )
    heat_map: AttentionMap | None = Field(description="Null unless `basis` is `full`.")


def evidence_fields(explanation: "Explanation") -> dict[str, Any]:
    heat_map = explanation.heat_map
    return {
        "contributions": RatingParts(**asdict(explanation.contributions)),
        "reviews": [_explained(review) for review in explanation.reviews],
        "heat_map": None
        if heat_map is None
        else AttentionMap(
            user_review_id=heat_map.user_review_id,
            item_review_id=heat_map.item_review_id,
            user_attention=heat_map.user_attention.tolist(),
            item_attention=heat_map.item_attention.tolist(),
        ),
    }


def _explained(review: "ReviewEvidence") -> ExplainedReview:
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
