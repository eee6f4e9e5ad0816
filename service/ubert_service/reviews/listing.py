"""Lists the reviews of one user or item page by page, newest first."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from ubert_model.ids import Identities
from ubert_model.review import ReviewEntry
from ubert_service.errors import UnknownItemError, UnknownUserError
from ubert_service.resident.residents import Residents
from ubert_service.reviews.rating_counts import RatingCounts

CURSOR_PATTERN = r"^[0-9]{1,12}:[\s\S]+$"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewPage:
    """A page of an entity's reviews. ``counts`` and ``with_text`` (reviews that have states) are over all pages."""

    known: bool
    counts: RatingCounts
    with_text: int
    reviews: Sequence[ReviewEntry]
    next_cursor: str | None
    """Where the next page starts; None on the last page."""


class ReviewListing:
    """Lists reviews as the store has them now. Thread-safe.

    A store keeps lists unordered, so each page needs the whole list. It is taken from memory unless it has changed:
    else every page of a list of 100,000 reviews would take seconds.
    """

    def __init__(self, *, identities: Identities, residents: Residents) -> None:
        self._identities = identities
        self._residents = residents

    def of_user(self, user: str, *, limit: int, cursor: str | None) -> ReviewPage:
        """Raises ``UnknownUserError``, ``NotReadyError`` for a store without the namespace, and ``StoreError``."""
        reviews = self._reviews(users=[user])
        known = user in self._identities.users
        if not (reviews or known):
            raise UnknownUserError(f"user {user!r} has no reviews, and training has not seen this user")
        return _page(reviews, known=known, limit=limit, cursor=cursor)

    def of_item(self, item: str, *, limit: int, cursor: str | None) -> ReviewPage:
        """Raises ``UnknownItemError``, ``NotReadyError`` for a store without the namespace, and ``StoreError``."""
        reviews = self._reviews(items=[item])
        known = item in self._identities.items
        if not (reviews or known):
            raise UnknownItemError(f"item {item!r} has no reviews, and training has not seen this item")
        return _page(reviews, known=known, limit=limit, cursor=cursor)

    def _reviews(self, *, users: Sequence[str] = (), items: Sequence[str] = ()) -> list[ReviewEntry]:
        (reviews,) = self._residents.review_lists(users, items, latest=True)
        return list(reviews)


def _page(reviews: Sequence[ReviewEntry], *, known: bool, limit: int, cursor: str | None) -> ReviewPage:
    start = 0 if cursor is None else _start_after(cursor, reviews)
    end = start + limit
    page = reviews[start:end]
    return ReviewPage(
        known=known,
        counts=RatingCounts.of(reviews),
        with_text=sum(review.rows > 0 for review in reviews),
        reviews=page,
        next_cursor=f"{page[-1].timestamp}:{page[-1].review_id}" if end < len(reviews) else None,
    )


def _start_after(cursor: str, reviews: Sequence[ReviewEntry]) -> int:
    # The cursor is a place in the sort order, not an index: reviews written or removed between two pages neither repeat
    # nor hide another one.
    timestamp, _, review_id = cursor.partition(":")
    last = int(timestamp), review_id
    return bisect_left(range(len(reviews)), True, key=lambda index: reviews[index].recency < last)
