"""States of the reviews that training reads, by their rows: from the bank where there is one, else encoded anew."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from ubert_training.reviews.table import Rows
from ubert_training.states.state_bank import TOKENS_PER_BATCH, StateBank, encode_batch
from ubert_training.states.tokens import TokenizedReviews

if TYPE_CHECKING:
    from ubert_model.nn.review_encoder import ReviewEncoder


@dataclass(frozen=True, kw_only=True, eq=False)
class ReviewStates:
    """States by row; ``encoder`` is in evaluation mode, on its device."""

    encoder: "ReviewEncoder"
    tokens: TokenizedReviews
    bank: StateBank | None

    def batches(self, rows: Rows) -> list[Rows]:
        """These rows in batches of like length, each to be asked for at once."""
        return list(self.tokens.length_buckets(rows, TOKENS_PER_BATCH))

    def sample(self, rows: Rows, count: int, seed: int) -> list[Rows]:
        """At most ``count`` of the reviews at ``rows`` that have text, drawn at random, in batches of like length."""
        with_text = rows[self.tokens.lengths[rows] > 0]
        return self.batches(with_text[np.random.default_rng(seed).permutation(len(with_text))[:count]])

    def unprojected(self, rows: Rows) -> list[NDArray[np.float32]]:
        """S^L of some reviews, pooled, each (rows, d)."""
        if self.bank is None:
            return encode_batch(self.encoder, self.tokens, rows)
        return [np.ascontiguousarray(self.bank.review(row)) for row in rows.tolist()]

    def projected(self, rows: Rows) -> list[NDArray[np.float32]]:
        """As a store keeps them before its codec, each (rows, D)."""
        unprojected = self.unprojected(rows)
        with torch.inference_mode():
            flat = torch.from_numpy(np.concatenate(unprojected)).to(self.encoder.bert.device)  # (T, d)
            projected = self.encoder.project(flat).cpu().numpy()  # (T, D)
        return np.split(projected, np.cumsum([len(matrix) for matrix in unprojected])[:-1])
