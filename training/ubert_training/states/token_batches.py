"""Reviews on their way into the encoder: tokenized and cut into batches of like length, some thousands at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ubert_model.tokenizer import ReviewTokenizer
from ubert_training.states.tokens import TokenizedReviews

TOKENS_PER_BATCH = 4096
REVIEWS_PER_WINDOW = 16_384
"""Tokenized together and ordered by length: enough for batches of nearly equal length, little enough to hold."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenBatch:
    """R reviews of like length.

    Shape:
        rows (of the review table), lengths: (R,); token_ids, mask: (R, L) int64 and bool, True = real.
    """

    rows: NDArray[np.int64]
    lengths: NDArray[np.int64]
    token_ids: Tensor
    mask: Tensor

    @property
    def tokens(self) -> int:
        """Padding not counted."""
        return int(self.lengths.sum())


def token_batches(texts: Sequence[str], rows: NDArray[np.int64], tokenizer: ReviewTokenizer) -> Iterator[TokenBatch]:
    """The reviews at ``rows``, each once; within a window the longest first, so that memory fails at once or never."""
    for start in range(0, len(rows), REVIEWS_PER_WINDOW):
        window = rows[start : start + REVIEWS_PER_WINDOW]
        tokens = TokenizedReviews.of([texts[row] for row in window.tolist()], tokenizer)
        for places in tokens.length_buckets(np.arange(len(window)), TOKENS_PER_BATCH):
            token_ids, mask = tokens.padded(places)
            yield TokenBatch(rows=window[places], lengths=tokens.lengths[places], token_ids=token_ids, mask=mask)
