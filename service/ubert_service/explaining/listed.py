"""Which reviews an explanation tells of.

The schemas read it too, so it imports nothing that only a service has installed.
"""

from collections.abc import Iterator

from ubert_model.states import ReviewEntry
from ubert_service.reading.histories import ReviewList

LISTED_UNREAD = 10
"""Reviews a side that count and are not read, of which an explanation tells the effect."""


def listed_reviews(reviews: ReviewList) -> Iterator[ReviewEntry]:
    """Those selected to be read, and the newest of the others, in the order of the list."""
    to_read = {review.review_id for review in reviews.whole.selected}
    others = 0
    for review in reviews:
        if review.review_id in to_read:
            to_read.remove(review.review_id)
            yield review
        elif others < LISTED_UNREAD:
            others += 1
            yield review
        elif not to_read:
            return  # what is older only counts
