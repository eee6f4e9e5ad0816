"""Encodes inline reviews, which are read for one answer and never stored."""

import math
from collections.abc import Sequence
from dataclasses import replace

from ubert_model.config import RatingScale
from ubert_model.rating.blend import stored_rating
from ubert_model.review import ReviewEntry, review_id
from ubert_model.states import FloatMatrix, StateCodec
from ubert_service.reading.inline import InlineReviews, InlineText
from ubert_service.scoring.encoding import ReviewEncoding
from ubert_service.work.cancellation import Cancelled, never_cancelled, raise_if_cancelled


def encode_inline(
    texts: Sequence[InlineText],
    *,
    user: str,
    encoder: ReviewEncoding,
    codec: StateCodec,
    scale: RatingScale,
    mean: float,
    cancelled: Cancelled = never_cancelled,
) -> InlineReviews:
    """Encode texts of a user, newest first, as if they had been written as reviews and read again.

    A text without a rating has the ``mean`` for the network, and does not count as a rating. None has a surplus, which
    counts on the item's side only.
    Raises ``InputError`` for a rating outside the scale, ``DeviceUnavailableError``, ``StateError`` for states that the
    codec cannot hold, and ``WorkCancelledError``.
    """
    # All ratings are checked before the first text is encoded.
    rated = [text if text.rating is None else replace(text, rating=stored_rating(text.rating, scale)) for text in texts]
    by_id = {_review_id(user, text): text for text in rated}
    entries: list[ReviewEntry] = []
    states: dict[str, FloatMatrix] = {}
    for name, text in by_id.items():
        raise_if_cancelled(cancelled)
        encoded = encoder.encode(text.text.strip())
        states[name] = codec.decode(codec.encode(encoded))
        entries.append(
            ReviewEntry(
                review_id=name,
                user=user,
                item=text.item or "",
                rating=mean if text.rating is None else text.rating,
                timestamp=0,
                rows=len(encoded),
            )
        )
    return InlineReviews(
        user=user,
        entries=tuple(entries),
        unrated=frozenset(name for name, text in by_id.items() if text.rating is None),
        states=states,
        texts={name: text.text for name, text in by_id.items()},
    )


def _review_id(user: str, text: InlineText) -> str:
    """The id that the review would be stored under, so that one already in the store is not read twice.

    A text without a rating is never stored. Its id is made with NaN, which no stored rating, 0 included, can equal.
    """
    rating = math.nan if text.rating is None else text.rating
    return review_id(user=user, item=text.item or "", timestamp=0, rating=rating, text=text.text.strip())
