"""What the answers of ``/reviews``, ``/users`` and ``/items`` say of reviews, users and items."""

from ubert_model.review import ReviewEntry
from ubert_service.read_version import ReadVersion
from ubert_service.reviews.directory import DirectoryPage
from ubert_service.reviews.listing import ReviewPage
from ubert_service.reviews.rating_counts import RatingCounts
from ubert_service.reviews.written_review import WrittenReview
from ubert_service.schemas import EntityCounts, EntityList, FoundEntity, ListedReview, ReviewAnswer, ReviewList


def review_answer(written: WrittenReview, *, version: str) -> ReviewAnswer:
    """The answer to a write under this state version."""
    return ReviewAnswer(
        review_id=written.entry.review_id,
        tokens=written.entry.rows,
        timestamp=written.entry.timestamp,
        states=version,
        read_version=str(ReadVersion(version, written.revision)),
        user=_counts(written.user_counts),
        item=_counts(written.item_counts),
    )


def review_list(identifier: str, page: ReviewPage, *, version: str) -> ReviewList:
    """A page of the reviews of a user or an item."""
    return ReviewList(
        id=identifier,
        known=page.known,
        counts=_counts(page.counts),
        with_text=page.with_text,
        states=version,
        reviews=[_listed(entry) for entry in page.reviews],
        next=page.next_cursor,
    )


def entity_list(page: DirectoryPage) -> EntityList:
    """A page of the users or items that a search has found."""
    found = [FoundEntity(id=hit.identifier, known=hit.known, counts=_counts(hit.counts)) for hit in page.found]
    return EntityList(found=found, next=page.next_after)


def _listed(entry: ReviewEntry) -> ListedReview:
    return ListedReview(
        review_id=entry.review_id,
        user=entry.user,
        item=entry.item,
        rating=entry.rating,
        timestamp=entry.timestamp,
        tokens=entry.rows,
    )


def _counts(counts: RatingCounts) -> EntityCounts:
    return EntityCounts(reviews=counts.count, mean_rating=counts.total / counts.count if counts.count else None)
