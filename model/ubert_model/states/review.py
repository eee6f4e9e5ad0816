"""What the store knows of a review beside its encoder states."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatMatrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewEntry:
    """One line of a user's or an item's review list; holds no text and no states.

    ``timestamp`` is in unix seconds (0: unknown). ``rows``: how many its states have, each of ``tokens_a_row``
    neighbouring tokens, before a codec pools them further: so which reviews a prediction reads never depends on the
    codec.
    """

    review_id: str
    user: str
    item: str
    rating: float
    timestamp: int
    rows: int

    @property
    def recency(self) -> tuple[int, str]:
        """Total order of a review list: by time, ties broken by identifier, so that it never depends on storage."""
        return (self.timestamp, self.review_id)
