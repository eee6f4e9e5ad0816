"""Where the projection of review states starts: at the principal axes of the states themselves.

Co-matching aligns rows by their products. From random weights the products of a pre-trained encoder's states are nearly
equal, so every row is aligned to the mean of the other side, and little is learned from few pairs. The axes are half
whitened and scaled so that alignment is neither to that mean nor to one row alone (measured in the README's Decisions).
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ubert_model.nn.review_encoder import ReviewEncoder
from ubert_training.states.state_bank import StateBank, sample_with_text, unprojected_batch
from ubert_training.tokens import TokenizedReviews

REVIEWS_READ = 1000
LEAST_VARIANCE = 1e-6
"""Of the mean: an axis of less is as good as constant and is not blown up."""
WHITENING = 0.5
"""An axis is divided by its variance to half this power: 0 keeps distances, 1 makes all axes equal."""
SHARPNESS = 0.5
"""Mean variance of an axis, in units of √D, by which Eq. 1 and 12 divide products of states."""


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
    encoder.to(device).eval()
    reviews = [
        states
        for batch in sample_with_text(tokens, rows, REVIEWS_READ, seed)
        for states in unprojected_batch(encoder, tokens, batch, bank, device)
    ]
    if reviews:
        _project_on_principal_axes(encoder.projection, np.concatenate(reviews).astype(np.float64))


def _project_on_principal_axes(projection: nn.Linear, states: NDArray[np.float64]) -> None:
    """The D axes of largest variance, (T, d) → (T, D), half whitened, of mean variance SHARPNESS √D."""
    centre = states.mean(axis=0)
    variances, axes = np.linalg.eigh(np.cov(states, rowvar=False, bias=True))  # ascending
    kept, kept_axes = variances[-projection.out_features :], axes[:, -projection.out_features :]
    # An axis has no direction of its own: the largest weight is made positive, so that all machines agree.
    largest = np.abs(kept_axes).argmax(axis=0)  # (D,)
    signs = np.sign(np.take_along_axis(kept_axes, largest[None], axis=0))  # (1, D)
    kept = np.maximum(kept, max(float(kept.mean()), float(np.finfo(np.float32).tiny)) * LEAST_VARIANCE)
    scale = kept ** (-WHITENING / 2)  # (D,)
    scale *= math.sqrt(SHARPNESS * math.sqrt(projection.out_features) / float(np.mean(kept * scale**2)))
    weight = (kept_axes * signs * scale).T
    with torch.no_grad():
        projection.weight.copy_(torch.from_numpy(weight))
        projection.bias.copy_(torch.from_numpy(-weight @ centre))
