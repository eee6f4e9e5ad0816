"""Input of the encoder: reviews are tokenized window by window, and divided into batches of similar length."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ubert_model.tokenizer import ReviewTokenizer
from ubert_training.states.tokens import TOKENS_PER_BATCH, TokenizedReviews

REVIEWS_PER_WINDOW = 16_384
"""Reviews sorted by length together: enough for batches of nearly equal length, few enough to hold in memory."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenBatch:
    """R reviews of similar length.

    Shape:
        rows (of the review table), lengths: (R,); token_ids, mask: (R, L) int64 and bool, True = real.
    """

    rows: NDArray[np.int64]
    lengths: NDArray[np.int64]
    token_ids: Tensor
    mask: Tensor

    @property
    def tokens(self) -> int:
        """Number of tokens, without padding."""
        return int(self.lengths.sum())


def token_batches(texts: Sequence[str], rows: NDArray[np.int64], tokenizer: ReviewTokenizer) -> Iterator[TokenBatch]:
    """Yield the reviews at ``rows`` in batches, in each window the longest first, so that memory fails early."""
    for start in range(0, len(rows), REVIEWS_PER_WINDOW):
        window = rows[start : start + REVIEWS_PER_WINDOW]
        tokens = TokenizedReviews.of([texts[row] for row in window.tolist()], tokenizer)
        for bucket in tokens.length_buckets(np.arange(len(window)), TOKENS_PER_BATCH):
            token_ids, mask = tokens.padded(bucket)
            yield TokenBatch(rows=window[bucket], lengths=tokens.lengths[bucket], token_ids=token_ids, mask=mask)
