"""Which reviews an explanation lists."""

from collections.abc import Iterator

from ubert_model.review import ReviewEntry
from ubert_service.reading.histories import ReviewList
from ubert_service.schemas import LISTED_UNREAD


def listed_reviews(reviews: ReviewList) -> Iterator[ReviewEntry]:
    """The reviews that are read and the newest of the others, in the order of the list."""
    to_read = {review.review_id for review in reviews.full_history.selected}
    others = 0
    for review in reviews:
        if review.review_id in to_read:
            to_read.remove(review.review_id)
            yield review
        elif others < LISTED_UNREAD:
            others += 1
            yield review
        elif not to_read:
            return  # all older reviews only count
