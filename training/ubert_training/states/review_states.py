"""Review states by row, for training: read from the bank if there is one, otherwise encoded on the fly."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from ubert_training.reviews.table import Rows
from ubert_training.states.state_bank import StateBank, encode_batch
from ubert_training.states.tokens import TOKENS_PER_BATCH, TokenizedReviews

if TYPE_CHECKING:
    from ubert_model.nn.review_encoder import ReviewEncoder


@dataclass(frozen=True, kw_only=True, eq=False)
class ReviewStates:
    """Review states by row. ``encoder`` is in evaluation mode, on its device."""

    encoder: "ReviewEncoder"
    tokens: TokenizedReviews
    bank: StateBank | None

    def batches(self, rows: Rows) -> list[Rows]:
        """Divide ``rows`` into batches of similar length, to be read or encoded together."""
        return list(self.tokens.length_buckets(rows, TOKENS_PER_BATCH))

    def sample(self, rows: Rows, count: int, seed: int) -> list[Rows]:
        """A random sample of at most ``count`` of the reviews at ``rows`` with text, in batches of similar length."""
        with_text = rows[self.tokens.lengths[rows] > 0]
        return self.batches(with_text[np.random.default_rng(seed).permutation(len(with_text))[:count]])

    def unprojected(self, rows: Rows) -> list[NDArray[np.float32]]:
        """Pooled S^L of each review, (rows, d)."""
        if self.bank is None:
            return encode_batch(self.encoder, self.tokens, rows)
        return [np.ascontiguousarray(self.bank.review(row)) for row in rows.tolist()]

    def projected(self, rows: Rows) -> list[NDArray[np.float32]]:
        """Projected states of each review, (rows, D): what the store's codec encodes."""
        unprojected = self.unprojected(rows)
        with torch.inference_mode():
            flat = torch.from_numpy(np.concatenate(unprojected)).to(self.encoder.bert.device)  # (T, d)
            projected = self.encoder.project(flat).cpu().numpy()  # (T, D)
        return np.split(projected, np.cumsum([len(matrix) for matrix in unprojected])[:-1])
