"""Explanations of ratings: the answer of ``/explain``, and of ``/predict`` with ``explain``."""

from typing import Literal

from pydantic import Field

from ubert_service.schemas.common import LISTED_UNREAD, TOKENS_OF_REVIEW, Answer


class RatingParts(Answer):
    """The parts of a rating in stars. They add up to the rating."""

    mean: float = Field(description="The mean of all training ratings, plus the intercept of the bias model.")
    user_bias: float = Field(description="How far the user's ratings lie from what is usual, shrunk by their count.")
    item_bias: float = Field(
        description="How far the item's reviews, by rating and text, lie from what is usual, shrunk by their count."
    )
    identity_and_summary: float = Field(
        description="The network's output from user, item and reviews of each side alone, as weighted in the blend."
    )
    matching: float = Field(
        description="The network's output from matching reviews and ratings of both sides, as weighted in the blend."
    )
    clipped: float = Field(description="What brings the sum of the others back into the scale; 0 if it is within.")


class ExplainedReview(Answer):
    """A review that the rating rests on."""

    review_id: str
    side: Literal["user", "item"] = Field(description="Whether it was read as a review of the user or of the item.")
    user: str
    item: str | None = Field(description="Null only for a text of `user_texts` without an item.")
    rating: float | None = Field(description="In stars. Null only for a text of `user_texts` without a rating.")
    timestamp: int = Field(description="Unix seconds; 0: unknown.")
    tokens: int = Field(description=TOKENS_OF_REVIEW)
    effect: float = Field(
        description=(
            "The rating minus the rating without this review (its text and its rating), computed by rating again. An "
            "older review may then be read in its place."
        )
    )
    matching: float = Field(description="Its contribution to `matching`, in stars; 0 if it was not read.")
    text: str | None = Field(
        description="The part that the encoder reads; null if the store has no text of it, or is away."
    )
    token_spans: list[tuple[int, int]] | None = Field(
        description=(
            "For each row that the network reads of it (`tokens`, or fewer if the codec pools them), where its words "
            "start and end in `text`, in code points; `[0, 0]` for a special token. Null without `text`."
        )
    )
    token_contributions: list[float] = Field(
        description="In stars, one per row that the network reads of it. They add up to `matching`; empty if not read."
    )


class AttentionMap(Answer):
    """The two reviews whose words attend most to each other, both ways (Figure 5 of the paper)."""

    user_review_id: str
    item_review_id: str
    user_attention: list[list[float]] = Field(
        description=(
            "For each row that the network reads of the user's review: the share of its attention (Eq. 12, over all "
            "of the item's reviews) that falls on each row of the item's review."
        )
    )
    item_attention: list[list[float]] = Field(description="The same from the item's review to the user's.")


class RatingEvidence(Answer):
    """The explanation of a rating."""

    contributions: RatingParts
    reviews: list[ExplainedReview] = Field(
        description=(
            f"All reviews that were read, and per side the newest {LISTED_UNREAD} of those that count without being "
            "read by the network; newest first, the user's before the item's."
        )
    )
    user_unlisted: int = Field(description="How many older reviews of the user count without being in `reviews`.")
    item_unlisted: int = Field(description="How many older reviews of the item count without being in `reviews`.")
    texts_unavailable: bool = Field(
        default=False,
        description="The store, which holds the texts, is away, so `text` is null where there may be one.",
    )
    heat_map: AttentionMap | None = Field(description="Null unless `basis` is `full`.")
