"""Reviews, users and items."""

from collections.abc import Sequence

from pydantic import ConfigDict, Field

from ubert_model.history import RatingCounts
from ubert_model.states import ReviewEntry
from ubert_service.read_version import ReadVersion
from ubert_service.reviews.directory import Listed
from ubert_service.reviews.listing import ReviewPage
from ubert_service.reviews.written_review import NewReview, WrittenReview
from ubert_service.schemas.common import (
    MAX_TEXT_CHARACTERS,
    Answer,
    Identifier,
    Request,
    ReviewId,
    StateVersion,
    UnixSeconds,
)


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
            "Title and body. It is encoded, and kept only by a service that runs with `--texts`. White space at its "
            "ends does not count; without words, only the rating counts."
        ),
    )
    timestamp: UnixSeconds | None = Field(
        default=None,
        description="When it was written, unix seconds; 0: unknown. By default the time when it first arrives.",
    )
    review_id: ReviewId | None = Field(
        default=None,
        description=(
            "A name of the caller's own, under which the review can be replaced later. By default it is named by its "
            "content, so that sending it twice stores it once."
        ),
    )

    def review(self) -> NewReview:
        """The review itself."""
        return NewReview(
            user=self.user,
            item=self.item,
            rating=self.rating,
            text=self.text,
            timestamp=self.timestamp,
            review_id=self.review_id,
        )


class EntityCounts(Answer):
    """How much is known of a user or an item."""

    reviews: int = Field(description="All reviews in the store, with or without text.")
    mean_rating: float | None = Field(description="Over all its reviews, in stars; null where there is none.")

    @classmethod
    def of(cls, counts: RatingCounts) -> "EntityCounts":
        return cls(reviews=counts.count, mean_rating=counts.total / counts.count if counts.count else None)


class ReviewAnswer(Answer):
    """A review as it now stands in the store."""

    review_id: str
    tokens: int = Field(description="Rows of its states; 0 where the text has no words.")
    timestamp: int = Field(description="Unix seconds, 0: unknown.")
    states: StateVersion
    read_version: str = Field(
        description="As the header `X-Read-Version`; send it with a question that must show this."
    )
    user: EntityCounts
    item: EntityCounts

    @classmethod
    def of(cls, written: WrittenReview, *, version: str) -> "ReviewAnswer":
        return cls(
            review_id=written.entry.review_id,
            tokens=written.entry.rows,
            timestamp=written.entry.timestamp,
            states=version,
            read_version=str(ReadVersion(version, written.revision)),
            user=EntityCounts.of(written.user_counts),
            item=EntityCounts.of(written.item_counts),
        )


class ListedReview(Answer):
    """One review, without its text."""

    review_id: str
    user: str
    item: str
    rating: float = Field(description="In stars, as its author gave it.")
    timestamp: int = Field(description="Unix seconds, 0: unknown.")
    tokens: int = Field(description="Rows of its states; 0 where the text has no words.")

    @classmethod
    def of(cls, entry: ReviewEntry) -> "ListedReview":
        return cls(
            review_id=entry.review_id,
            user=entry.user,
            item=entry.item,
            rating=entry.rating,
            timestamp=entry.timestamp,
            tokens=entry.rows,
        )


class ReviewList(Answer):
    """A page of the reviews of a user or an item, newest first, and what is known over all its pages."""

    id: str = Field(description="The user or the item.")
    known: bool = Field(description="Has training seen it?")
    counts: EntityCounts
    with_text: int = Field(description="Of all its reviews, those that have words and so have states.")
    states: StateVersion
    reviews: list[ListedReview]
    next: str | None = Field(description="Send it as `cursor` to read on; null on the last page.")

    @classmethod
    def of(cls, identifier: str, page: ReviewPage, *, version: str) -> "ReviewList":
        return cls(
            id=identifier,
            known=page.known,
            counts=EntityCounts.of(page.counts),
            with_text=page.with_text,
            states=version,
            reviews=[ListedReview.of(entry) for entry in page.reviews],
            next=page.next_cursor,
        )


class FoundEntity(Answer):
    """A user or an item."""

    id: str
    known: bool = Field(description="Has training seen it?")
    counts: EntityCounts


class EntityList(Answer):
    """Users or items in the order of their identifiers, after the one whose identifier is the whole prefix."""

    found: list[FoundEntity]

    @classmethod
    def of(cls, found: Sequence[Listed]) -> "EntityList":
        return cls(
            found=[FoundEntity(id=one.identifier, known=one.known, counts=EntityCounts.of(one.counts)) for one in found]
        )
