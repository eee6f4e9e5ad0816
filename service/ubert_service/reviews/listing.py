"""Lists the reviews of one user or item page by page, newest first."""

from collections.abc import Sequence
from dataclasses import dataclass

from ubert_model.history import RatingCounts
from ubert_model.ids import Identities
from ubert_model.states import Namespace, ReviewEntry, StateStore
from ubert_service.errors import UnknownItemError, UnknownUserError
from ubert_service.reading.namespaces import require_namespace

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
    """Reads review lists. Thread-safe."""

    def __init__(self, *, identities: Identities, namespace: Namespace, store: StateStore) -> None:
        self._identities = identities
        self._namespace = namespace
        self._store = store

    def of_user(self, user: str, *, limit: int, cursor: str | None) -> ReviewPage:
        """Raises ``UnknownUserError``, ``NotReadyError`` for a store without the namespace, and ``StoreError``."""
        (reviews,) = self._store.user_reviews(self._namespace.version, [user])
        self._require_namespace_unless(reviews)
        known = user in self._identities.users
        if not (reviews or known):
            raise UnknownUserError(f"user {user!r} has no reviews, and training has not seen this user")
        return _page(reviews, known=known, limit=limit, cursor=cursor)

    def of_item(self, item: str, *, limit: int, cursor: str | None) -> ReviewPage:
        """Raises ``UnknownItemError``, ``NotReadyError`` for a store without the namespace, and ``StoreError``."""
        (reviews,) = self._store.item_reviews(self._namespace.version, [item])
        self._require_namespace_unless(reviews)
        known = item in self._identities.items
        if not (reviews or known):
            raise UnknownItemError(f"item {item!r} has no reviews, and training has not seen this item")
        return _page(reviews, known=known, limit=limit, cursor=cursor)

    def _require_namespace_unless(self, reviews: Sequence[ReviewEntry]) -> None:
        if not reviews:  # either this entity has none, or the store was emptied
            require_namespace(self._store, self._namespace)


def _page(reviews: Sequence[ReviewEntry], *, known: bool, limit: int, cursor: str | None) -> ReviewPage:
    # The cursor is a place in the sort order, not an index: reviews written or removed between two pages neither repeat
    # nor hide another one.
    rest = reviews if cursor is None else [review for review in reviews if review.recency < _recency(cursor)]
    page = rest[:limit]
    return ReviewPage(
        known=known,
        counts=RatingCounts.of(reviews),
        with_text=sum(review.rows > 0 for review in reviews),
        reviews=page,
        next_cursor=f"{page[-1].timestamp}:{page[-1].review_id}" if len(page) < len(rest) else None,
    )


def _recency(cursor: str) -> tuple[int, str]:
    timestamp, _, review_id = cursor.partition(":")
    return int(timestamp), review_id
