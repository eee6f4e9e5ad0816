"""``/reviews``, ``/users`` and ``/items``."""

from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field

from ubert_service.schemas.common import (
    MAX_TEXT_CHARACTERS,
    TOKENS_OF_REVIEW,
    Answer,
    Identifier,
    Request,
    ReviewId,
    StateVersion,
    UnixSeconds,
)

_STEPS = (".", "..")


def _addressable(review_id: str) -> str:
    if review_id in _STEPS:
        raise ValueError(
            f"{review_id!r} is a step in an address, even as %2E, so few clients could remove the review; use another"
        )
    return review_id


NewReviewId = Annotated[ReviewId, AfterValidator(_addressable), Field(json_schema_extra={"not": {"enum": _STEPS}})]


class ReviewRequest(Request):
    """A review to store."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"user": "A2IBPI20UZIR0U", "item": "B00004Y2UT", "rating": 5, "text": "Stays in tune for weeks."}
            ]
        }
    )

    user: Identifier
    item: Identifier
    rating: float = Field(allow_inf_nan=False, description="In stars, within the scale of the bundle.")
    text: str = Field(
        max_length=MAX_TEXT_CHARACTERS,
        repr=False,
        description=(
            "Title and body. Its encoded states are stored; the text itself only by a service that runs with "
            "`--texts`. Leading and trailing white space is ignored; without words, only the rating counts."
        ),
    )
    timestamp: UnixSeconds | None = Field(
        default=None,
        description=(
            "When it was written, in Unix seconds, at most a day ahead; 0: unknown. By default the time of its first "
            "arrival."
        ),
    )
    review_id: NewReviewId | None = Field(
        default=None,
        description=(
            "An identifier of the caller's choice, under which the review can be replaced later. By default it is "
            "derived from the content, so that sending a review twice stores it once."
        ),
    )


class EntityCounts(Answer):
    """How much is known of a user or an item."""

    reviews: int = Field(description="All reviews in the store, with or without text.")
    mean_rating: float | None = Field(description="Over all its reviews, in stars; null if there are none.")


class ReviewAnswer(Answer):
    """A review as it is stored now."""

    review_id: str
    tokens: int = Field(description=TOKENS_OF_REVIEW)
    timestamp: int = Field(description="Unix seconds; 0: unknown.")
    states: StateVersion
    read_version: str = Field(
        description="As the header `X-Read-Version`: send it with a request whose answer must show this write."
    )
    user: EntityCounts
    item: EntityCounts


class ListedReview(Answer):
    """One review, without its text."""

    review_id: str
    user: str
    item: str
    rating: float = Field(description="In stars, as its author gave it.")
    timestamp: int = Field(description="Unix seconds; 0: unknown.")
    tokens: int = Field(description=TOKENS_OF_REVIEW)


class ReviewList(Answer):
    """A page of the reviews of a user or an item, newest first, with counts over all pages."""

    id: str = Field(description="The user or the item.")
    known: bool = Field(description="Has training seen it?")
    counts: EntityCounts
    with_text: int = Field(description="Of all its reviews, those with words, and so with states.")
    states: StateVersion
    reviews: list[ListedReview]
    next: str | None = Field(description="Send it as `cursor` to get the next page; null on the last page.")


class FoundEntity(Answer):
    """A user or an item."""

    id: str
    known: bool = Field(description="Has training seen it?")
    counts: EntityCounts


class EntityList(Answer):
    """A page of users or items: first the one whose identifier equals the prefix, then the others in order."""

    found: list[FoundEntity]
    next: str | None = Field(description="Send it as `cursor` to get the next page; null on the last page.")
