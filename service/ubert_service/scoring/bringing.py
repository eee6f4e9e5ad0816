"""Reviews that a request brings along: encoded on the spot, read by its own answer, never stored."""

import math
from collections.abc import Sequence
from dataclasses import replace

from ubert_model.config import RatingScale
from ubert_model.rating.blend import stored_rating
from ubert_model.review_id import review_id
from ubert_model.states import ReviewEntry
from ubert_service.reading.brought import BroughtReviews, BroughtText
from ubert_service.scoring.encoding import ReviewEncoding


def bring(
    texts: Sequence[BroughtText], *, user: str, encoder: ReviewEncoding, scale: RatingScale, mean: float
) -> BroughtReviews:
    """Encode the texts of a user, newest first, as if they had been written as reviews.

    To the network, one without a rating looks as if it had the ``mean``; to the counts, as if it were not there.
    Raises ``InputError`` for a rating outside the scale, ``DeviceUnavailableError``.
    """
    # All of them before the first is encoded.
    rated = [one if one.rating is None else replace(one, rating=stored_rating(one.rating, scale)) for one in texts]
    named = {_name(user, one): one for one in rated}
    states = {name: encoder.encode(one.text.strip()) for name, one in named.items()}
    entries = [
        ReviewEntry(
            review_id=name,
            user=user,
            item=one.item or "",
            rating=mean if one.rating is None else one.rating,
            timestamp=0,
            rows=len(states[name]),
        )
        for name, one in named.items()
    ]
    return BroughtReviews(
        user=user,
        entries=tuple(entries),
        unrated=frozenset(name for name, one in named.items() if one.rating is None),
        states=states,
        texts={name: one.text for name, one in named.items()},
    )


def _name(user: str, one: BroughtText) -> str:
    """What the review would be named if it were stored, so that one that is stored already is not read twice.

    One without a rating is never stored: no rating names it, so that none, 0 included, is taken for its own.
    """
    rating = math.nan if one.rating is None else one.rating
    return review_id(user=user, item=one.item or "", timestamp=0, rating=rating, text=one.text.strip())
