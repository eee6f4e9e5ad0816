"""A review as it is sent, and as it is stored."""

from dataclasses import dataclass, field

from ubert_model.review import ReviewEntry
from ubert_model.states import Revision
from ubert_service.reviews.rating_counts import RatingCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class NewReview:
    """A review as it is sent.

    ``timestamp`` None: the time when it first arrives. ``review_id`` None: derived from its content.
    """

    user: str
    item: str
    rating: float
    text: str = field(repr=False)
    timestamp: int | None = None
    review_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenReview:
    """A review as it is stored. The counts are over all reviews of its user and item, this one included."""

    entry: ReviewEntry
    created: bool
    """False: the store listed a review of this id before, and now holds the same or new content."""
    revision: Revision
    """Its position in the store's change feed."""
    user_counts: RatingCounts
    item_counts: RatingCounts
