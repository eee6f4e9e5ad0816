"""A review: its entry in the lists of its user and its item, these two sides, and its identifier."""

import hashlib
import struct
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewEntry:
    """One line of a user's or an item's review list; holds no text and no states.

    ``timestamp`` is in unix seconds (0: unknown). ``rows`` counts the rows of its states, each of ``tokens_a_row``
    neighbouring tokens, before a codec pools them further, so that the choice of reviews for a prediction does not
    depend on the codec. ``surplus``: how many stars the text says beyond the rating
    (:class:`~ubert_model.rating.text_reader.TextReader`), a float32; 0 for a review without text.
    """

    review_id: str
    user: str
    item: str
    rating: float
    timestamp: int
    rows: int
    surplus: float = 0.0

    @property
    def recency(self) -> tuple[int, str]:
        """Sort key of a review list: time, then identifier, so that the order never depends on storage."""
        return (self.timestamp, self.review_id)


class Side(StrEnum):
    """The two lists that hold a review: its user's and its item's."""

    USER = "user"
    ITEM = "item"

    def entity(self, entry: ReviewEntry) -> str:
        """The user or item whose list of this side holds the review."""
        return entry.user if self is Side.USER else entry.item

    def counterpart(self, entry: ReviewEntry) -> str:
        """The review's item in a user's list, its user in an item's."""
        return entry.item if self is Side.USER else entry.user


def review_id(*, user: str, item: str, timestamp: int, rating: float, text: str) -> str:
    """The digest of a review's content: 16 lower-case hexadecimal characters.

    The rating is hashed as the float32 that a review table stores, and every text after its length, so that different
    reviews never give the same bytes to hash. The domain is left out: it belongs to the item, and the same review
    found in two files must be recognised as one.
    """
    digest = hashlib.blake2b(struct.pack("<qf", timestamp, rating + 0.0), digest_size=8)
    for part in (user, item, text):
        encoded = part.encode()
        digest.update(struct.pack("<q", len(encoded)))
        digest.update(encoded)
    return digest.hexdigest()
