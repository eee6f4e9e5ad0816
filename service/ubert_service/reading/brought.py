"""What a request brings along for its user: texts as they come, and the reviews that are read for them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ubert_model.states import FloatMatrix, ReviewEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class BroughtText:
    """A text of the user, with the rating in stars and the item where these are known."""

    text: str = field(repr=False)
    rating: float | None = None
    item: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class BroughtReviews:
    """Reviews that a request brings along for its user: read by its own answer, never stored.

    The first counts as the newest, and all are newer than what the store has. ``unrated`` names those without a
    rating: they are read, but do not count. One on no item has the item "".
    """

    user: str
    entries: tuple[ReviewEntry, ...]
    unrated: frozenset[str]
    states: Mapping[str, FloatMatrix]
    texts: Mapping[str, str] = field(repr=False)
