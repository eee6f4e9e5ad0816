"""All reviews of a table as WordPiece ids, in one ragged array."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ubert_model.rows import pooled_rows
from ubert_model.running.batches import batches
from ubert_model.tokenizer import TEXTS_PER_BATCH, ReviewTokenizer

TOKENS_PER_BATCH = 4096
"""Budget of :meth:`TokenizedReviews.length_buckets` for batches without gradients."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenizedReviews:
    """Token ids of R reviews as a ragged array: those of review r are ``ids[starts[r] : starts[r + 1]]``.

    Shape:
        ids: (T,) int32; starts: (R + 1,) int64.
    """

    ids: NDArray[np.int32]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Sequence[str], tokenizer: ReviewTokenizer) -> "TokenizedReviews":
        """Tokenize ``texts`` in order."""
        lengths: list[int] = []
        flat = [np.zeros(0, dtype=np.int32)]
        for batch in batches(texts, TEXTS_PER_BATCH):
            encoded = tokenizer.encode(batch)
            lengths += map(len, encoded)
            flat.append(np.fromiter(chain.from_iterable(encoded), dtype=np.int32))
        starts = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths, out=starts[1:])
        return cls(ids=np.concatenate(flat), starts=starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens L of each review, (R,)."""
        return np.diff(self.starts)

    def row_counts(self, tokens_a_row: int) -> NDArray[np.int64]:
        """Rows of states of each review, (R,)."""
        return pooled_rows(self.lengths, tokens_a_row)

    def row_starts(self, tokens_a_row: int) -> NDArray[np.int64]:
        """Starts of the reviews in a ragged array of their rows of states, (R + 1,)."""
        return np.concatenate([[0], np.cumsum(self.row_counts(tokens_a_row))])

    def review(self, row: int) -> NDArray[np.int32]:
        """Token ids of one review, (L,)."""
        return self.ids[self.starts[row] : self.starts[row + 1]]

    def padded(self, rows: Sequence[int] | NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Padded token ids and mask of some reviews, (R, L) int64 and bool; padding has id 0 and mask False."""
        reviews = [self.review(int(row)) for row in rows]
        length = max((len(review) for review in reviews), default=0)
        ids = np.zeros((len(reviews), length), dtype=np.int64)
        mask = np.zeros((len(reviews), length), dtype=bool)
        for index, review in enumerate(reviews):
            ids[index, : len(review)] = review
            mask[index, : len(review)] = True
        return torch.from_numpy(ids), torch.from_numpy(mask)

    def length_buckets(self, rows: NDArray[np.int64], token_budget: int) -> Iterator[NDArray[np.int64]]:
        """Divide ``rows`` into batches of similar length whose padded size is within the budget.

        The longest come first, so that a budget too large for memory fails at once and not after an hour.
        """
        lengths = self.lengths
        ordered = rows[np.argsort(-lengths[rows], kind="stable")]
        start = 0
        while start < len(ordered):
            size = max(1, token_budget // max(1, int(lengths[ordered[start]])))
            yield ordered[start : start + size]
            start += size
