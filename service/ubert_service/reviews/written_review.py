"""A review as its author sends it, and as it stands in the store once it is written."""

from dataclasses import dataclass, field

from ubert_model.history import RatingCounts
from ubert_model.states import ReviewEntry, Revision


@dataclass(frozen=True, slots=True, kw_only=True)
class NewReview:
    """A review as its author sends it.

    ``timestamp`` None: it is dated when it first arrives. ``review_id`` None: it is named by its content.
    """

    user: str
    item: str
    rating: float
    text: str = field(repr=False)
    timestamp: int | None = None
    review_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenReview:
    """A review as it now stands in the store. The counts are over all reviews of its user and item, it included."""

    entry: ReviewEntry
    created: bool
    """False: the store listed it before, and holds the same or new content under the same name now."""
    revision: Revision
    """Where the store's feed of changes tells of it."""
    user_counts: RatingCounts
    item_counts: RatingCounts
