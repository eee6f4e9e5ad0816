"""A review as a store lists it, without its encoder states."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatMatrix = NDArray[np.float32]


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
