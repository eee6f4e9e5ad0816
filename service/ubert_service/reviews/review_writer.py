"""Writes and removes reviews at run time; each is encoded on arrival and stored beside the precomputed ones."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

import numpy as np

from ubert_model.config import RatingScale
from ubert_model.errors import InputError, ReviewNameTakenError
from ubert_model.rating.blend import stored_rating
from ubert_model.rating.text_reader import TextReader
from ubert_model.review import ReviewEntry, Side, review_id
from ubert_model.states import Revision, StateCodec, StateStore, entity_mark, state_mark
from ubert_service.errors import UnknownReviewError
from ubert_service.explaining.review_texts import ReviewTexts
from ubert_service.read_version import ReadVersion
from ubert_service.reading.namespaces import require_namespace
from ubert_service.resident.residents import Residents
from ubert_service.reviews.rating_counts import RatingCounts
from ubert_service.reviews.written_review import NewReview, WrittenReview
from ubert_service.scoring.encoding import ReviewEncoding

_UNDATED = 0
_ROUNDING = 0.05
"""How far states of one text may differ, as a share of the largest: they are encoded in other batches, then coded."""
_MOST_AHEAD_S = 24 * 60 * 60
"""How far a caller's clock may be ahead, its time zone included."""


class ReviewWriter:
    """Writes and removes reviews of one namespace. Thread-safe, keeps nothing between calls.

    If two callers write the same review, the last wins; if two write different pairs under one id, the first wins.
    A review that is written and removed at the same time may stay listed without its states; predictions then report a
    missing state, or read that of a later review under its id. A write that the store cuts short can be repeated.
    """

    def __init__(
        self,
        *,
        scale: RatingScale,
        codec: StateCodec,
        store: StateStore,
        residents: Residents,
        encoder: ReviewEncoding,
        reader: TextReader,
        texts: ReviewTexts,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._scale = scale
        self._codec = codec
        self._namespace = codec.namespace
        self._store = store
        self._residents = residents
        self._encoder = encoder
        self._reader = reader
        self._texts = texts
        self._clock = clock

    def add(self, review: NewReview, *, name: str | None = None, sharing: Sequence[Residents] = ()) -> WrittenReview:
        """Encode a review and write it; once this returns, every prediction over the store reads it.

        Writing the same review again changes nothing. A review with the same caller-chosen id is replaced.
        ``name``: the id under another bundle, used here, too.
        ``sharing``: other residents of the namespace, which must show the write as well.

        Raises ``InputError`` for a rating outside the scale or a time to come, ``ReviewNameTakenError``,
        ``NotReadyError`` while the store does not hold the namespace, and ``StoreError``, ``StateError`` or
        ``DeviceUnavailableError``.
        """
        rating = stored_rating(review.rating, self._scale)
        self._require_past(review.timestamp)
        text = review.text.strip()
        name = name or review.review_id or _content_id(review, rating, text)
        # Not opened here: that would make a store that has lost all its states look ready again.
        require_namespace(self._store, self._namespace)
        user_reviews, item_reviews = self._lists(review.user, review.item)
        before = _find(name, review.user, review.item, chain(user_reviews, item_reviews))
        states = self._encoder.encode(text)
        entry = ReviewEntry(
            review_id=name,
            user=review.user,
            item=review.item,
            rating=rating,
            timestamp=self._timestamp(review, before),
            rows=len(states),
            surplus=self._reader.surplus(text, review.item, rating),
        )
        payload = self._codec.encode(states)
        texts = self._texts.to_keep(name, text)
        version = self._namespace.version
        with _invalidating([self._residents, *sharing], entry):
            revision = None
            if before is None:
                try:
                    revision = self._store.put_new(version, entry, payload, texts)
                except ReviewNameTakenError:
                    # A derived id names the content: a like state is left from an interrupted write of this review.
                    if review.review_id is not None or not self._holds_alike(name, payload):
                        raise
            if revision is None:
                revision = self._store.put(version, [(entry, payload)], texts)
        return WrittenReview(
            entry=entry,
            created=before is None,
            revision=revision,
            user_counts=_counts_with(entry, user_reviews),
            item_counts=_counts_with(entry, item_reviews),
        )

    def remove(self, name: str, *, user: str, item: str, sharing: Sequence[Residents] = ()) -> Revision:
        """Remove a review from both lists, then its states; returns its position in the store's change feed.

        ``sharing``: as for :meth:`add`.

        Raises ``UnknownReviewError`` if neither list holds it, ``NotReadyError`` while the store does not hold the
        namespace, and ``StoreError``. Repeating a removal that was cut short finishes it, as long as one list still
        holds the review; if none does, it is announced.
        """
        user_reviews, item_reviews = self._lists(user, item)
        entry = _find(name, user, item, chain(user_reviews, item_reviews))
        if entry is None:
            # A store that has lost the namespace may be restored with this review: then it must not pass for removed.
            require_namespace(self._store, self._namespace)
            version = self._namespace.version
            marks = (state_mark(name), entity_mark(Side.USER, user), entity_mark(Side.ITEM, item))
            revision = self._store.announce(version, marks)
            raise UnknownReviewError(
                f"user {user!r} has no review {name!r} on item {item!r}; GET /users/… or /items/… lists what exists",
                read_version=ReadVersion(version, revision),
            )
        with _invalidating([self._residents, *sharing], entry):
            return self._store.delete(self._namespace.version, [entry])

    def _holds_alike(self, name: str, payload: bytes) -> bool:
        """Does the store hold, under this id, states that differ from these by rounding alone?"""
        (stored,) = self._store.states(self._namespace.version, [name])
        if stored is None:
            return False
        there, here = self._codec.decode(stored), self._codec.decode(payload)
        return there.shape == here.shape and np.allclose(there, here, atol=_ROUNDING * np.abs(here).max(initial=0.0))

    def _lists(self, user: str, item: str) -> tuple[list[ReviewEntry], list[ReviewEntry]]:
        user_lists, item_lists = self._store.review_lists(self._namespace.version, users=[user], items=[item])
        return user_lists[0], item_lists[0]

    def _require_past(self, timestamp: int | None) -> None:
        # It would count as the newest of its user and item until then.
        if timestamp is not None and timestamp > (now := int(self._clock())) + _MOST_AHEAD_S:
            raise InputError(
                f"timestamp {timestamp} is {(timestamp - now) / _MOST_AHEAD_S:,.1f} days ahead of the service's clock; "
                "send when the review was written, in Unix seconds"
            )

    def _timestamp(self, review: NewReview, before: ReviewEntry | None) -> int:
        if review.timestamp is not None:
            return review.timestamp
        return int(self._clock()) if before is None else before.timestamp


@contextmanager
def _invalidating(caches: Iterable[Residents], entry: ReviewEntry) -> Iterator[None]:
    try:
        yield
    finally:  # also if the write failed, since part of it may be done
        for residents in caches:
            residents.wrote([entry])


def _content_id(review: NewReview, rating: float, text: str) -> str:
    # Without the time of arrival: a caller that never got the answer and retries must get the same id.
    dated = review.timestamp or _UNDATED
    return review_id(user=review.user, item=review.item, timestamp=dated, rating=rating, text=text)


def _find(name: str, user: str, item: str, reviews: Iterable[ReviewEntry]) -> ReviewEntry | None:
    sought = (name, user, item)
    return next((entry for entry in reviews if (entry.review_id, entry.user, entry.item) == sought), None)


def _counts_with(entry: ReviewEntry, reviews: Sequence[ReviewEntry]) -> RatingCounts:
    return RatingCounts.of([entry, *(review for review in reviews if review.review_id != entry.review_id)])
