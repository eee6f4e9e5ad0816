"""Inline reviews: texts that a request sends for its user, and the reviews made from them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ubert_model.review import ReviewEntry
from ubert_model.states import FloatMatrix


@dataclass(frozen=True, slots=True, kw_only=True)
class InlineText:
    """A text of the user, with its rating in stars and its item if they are known."""

    text: str = field(repr=False)
    rating: float | None = None
    item: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class InlineReviews:
    """Reviews sent with a request for its user: read for that answer alone, never stored.

    Newest first, and all newer than any stored review. ``unrated`` holds the ids of those without a rating: they are
    read, but do not count as ratings. A review of no item has the item "".
    """

    user: str
    entries: tuple[ReviewEntry, ...]
    unrated: frozenset[str]
    states: Mapping[str, FloatMatrix]
    texts: Mapping[str, str] = field(repr=False)
