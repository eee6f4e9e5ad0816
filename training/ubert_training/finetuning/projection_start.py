"""Where the projection of review states starts: at the principal axes of the states themselves.

Co-matching aligns rows by their products. From random weights the products of a pre-trained encoder's states are nearly
equal, so every row is aligned to the mean of the other side, and little is learned from few pairs.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ubert_model.nn.review_encoder import ReviewEncoder
from ubert_training.states.state_bank import TOKENS_PER_BATCH, StateBank, encode_batch
from ubert_training.tokens import TokenizedReviews

REVIEWS_READ = 1000


def start_projection(
    encoder: ReviewEncoder,
    tokens: TokenizedReviews,
    rows: NDArray[np.int64],
    bank: StateBank | None,
    device: torch.device,
    seed: int,
) -> None:
    """Set the encoder's projection by a sample of the reviews at ``rows``; their states come from the bank, else are
    encoded. An encoder without a projection, or with one to more dimensions than it has axes, stays as it is.
    """
    if not isinstance(encoder.projection, nn.Linear) or encoder.dim > encoder.hidden_dim:
        return
    with_text = rows[tokens.lengths[rows] > 0]
    chosen = with_text[np.random.default_rng(seed).permutation(len(with_text))[:REVIEWS_READ]]
    reviews = _states(encoder.to(device).eval(), tokens, chosen, bank, device)
    if reviews:
        _project_on_principal_axes(encoder.projection, np.concatenate(reviews).astype(np.float64))


def _states(
    encoder: ReviewEncoder,
    tokens: TokenizedReviews,
    chosen: NDArray[np.int64],
    bank: StateBank | None,
    device: torch.device,
) -> Sequence[NDArray[np.float32]]:
    """S^L of the chosen reviews, pooled, (rows, d) each."""
    if bank is not None:
        return [bank.review(row) for row in chosen.tolist()]
    batches = tokens.length_buckets(chosen, TOKENS_PER_BATCH)
    return [states for batch in batches for states in encode_batch(encoder, tokens, batch, device)]


def _project_on_principal_axes(projection: nn.Linear, states: NDArray[np.float64]) -> None:
    """The D axes of largest variance, (T, d) → (T, D), all on one scale, which makes their mean variance 1."""
    centre = states.mean(axis=0)
    variances, axes = np.linalg.eigh(np.cov(states, rowvar=False, bias=True))  # ascending
    kept, kept_axes = variances[-projection.out_features :], axes[:, -projection.out_features :]
    # An axis has no direction of its own: the largest weight is made positive, so that all machines agree.
    largest = np.abs(kept_axes).argmax(axis=0)  # (D,)
    signs = np.sign(np.take_along_axis(kept_axes, largest[None], axis=0))  # (1, D)
    deviation = math.sqrt(max(float(kept.mean()), float(np.finfo(np.float32).tiny)))
    weight = (kept_axes * signs).T / deviation
    with torch.no_grad():
        projection.weight.copy_(torch.from_numpy(weight))
        projection.bias.copy_(torch.from_numpy(-weight @ centre))
