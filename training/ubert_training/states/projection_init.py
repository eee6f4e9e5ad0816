"""Data-dependent initialization of the projection of review states.

Co-matching aligns rows by their dot products. With random weights, the projected states of a pre-trained encoder have
nearly equal products, so every row is aligned to the mean of the other side, and little is learned from few pairs.

Rows should be aligned by their subject, not by their sentiment. A writer returns to the same subjects but praises some
items and criticizes others, so the subject lies along the axes on which *writers* differ more than they would if
reviews were assigned to them at random. What is said about a subject lies along the principal axes. These are scaled
down: too small to decide the alignment, but still read by the layers that compare the aligned rows. Where no axis
distinguishes writers, the principal axes serve for both. (All measured in the README's Decisions.)
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh
from torch import nn

from ubert_training.reviews.table import Rows
from ubert_training.states.review_states import ReviewStates

REVIEWS_READ = 5000
"""Reviews sampled from a bank."""
REVIEWS_ENCODED = 1000
"""Reviews sampled without a bank, where they have to be encoded first."""
WHITENING = 0.5
"""A principal axis is divided by its variance to half this power: 0 keeps distances, 1 makes all variances equal."""
SHARPNESS = 0.5
"""Mean variance of the axes that align, in units of √D, by which Eq. 1 and 12 divide products of states."""
PRINCIPAL_SCALE = 0.2
"""Standard deviation of the principal axes relative to that of the writer axes, if there are any."""
RIDGE = 1e-3
"""Share of the mean variance that is added within writers, so that a constant direction distinguishes nobody."""
LEAST_VARIANCE = 1e-6
"""Share of the mean variance: an axis with less is practically constant, and is not scaled up."""

ROUNDING = 1e-6
"""Relative error by which the ratios of the same writers in another order may differ."""

Matrix = NDArray[np.float64]


def initialize_projection(states: ReviewStates, rows: Rows, writers: Sequence[str], seed: int) -> None:
    """Initialize the encoder's projection from a sample of the reviews at ``rows``.

    An encoder without a projection, or with one to more dimensions than it has axes, stays as it is.

    Shape:
        writers: (R,), the author of each review of ``states``.
    """
    encoder = states.encoder
    if not isinstance(encoder.projection, nn.Linear) or encoder.dim > encoder.hidden_dim:
        return
    sample: list[NDArray[np.float32]] = []
    review_of: list[int] = []
    for batch in states.sample(rows, REVIEWS_ENCODED if states.bank is None else REVIEWS_READ, seed):
        for row, review in zip(batch.tolist(), states.unprojected(batch), strict=True):
            sample.append(review)
            review_of += [row] * len(review)
    if not sample:
        return
    joined = np.concatenate(sample).astype(np.float64)  # (T, d)
    centre = joined.mean(axis=0)
    weight = _axes(joined - centre, np.array(review_of), writers, encoder.dim, seed)
    with torch.no_grad():
        encoder.projection.weight.copy_(torch.from_numpy(weight))
        encoder.projection.bias.copy_(torch.from_numpy(-weight @ centre))


def _axes(centred: Matrix, review_of: NDArray[np.int64], writers: Sequence[str], dim: int, seed: int) -> Matrix:
    """Weights of a projection, (D, d): writer axes, then principal axes."""
    covariance = centred.T @ centred / len(centred)
    discriminant = writer_axes(centred, covariance, review_of, writers, seed)[:, : dim // 2]  # (d, K)
    principal = _principal_axes(covariance, dim - discriminant.shape[1])
    unit = math.sqrt(SHARPNESS * math.sqrt(dim))
    if not discriminant.shape[1]:
        return (unit * principal).T
    return unit * np.concatenate([discriminant, PRINCIPAL_SCALE * principal], axis=1).T


def writer_axes(
    centred: Matrix, covariance: Matrix, review_of: NDArray[np.int64], writers: Sequence[str], seed: int
) -> Matrix:
    """Axes along which writers differ more than by chance, the most discriminative first, each of variance 1: (d, K).

    Fisher's discriminant axes between writers whose ratio of total variance to variance within writers exceeds the
    largest one found after a random permutation of the reviews' writers.

    Shape:
        centred: (T, d); covariance: theirs, (d, d); review_of: (T,), the review of each row; writers: (R,).
    """
    reviews, review_index = np.unique(review_of, return_inverse=True)
    _, writer_of_review, counts = np.unique(
        [writers[review] for review in reviews.tolist()], return_inverse=True, return_counts=True
    )
    if counts.max() == 1:
        return np.zeros((centred.shape[1], 0))
    permuted = np.random.default_rng([seed, 31]).permutation(writer_of_review)
    ratios, axes = _discriminant_axes(centred, covariance, writer_of_review[review_index])
    by_chance, _ = _discriminant_axes(centred, covariance, permuted[review_index])
    significant = axes[:, ratios > by_chance.max() * (1 + ROUNDING)]
    variances = np.einsum("ij,ij->j", significant, covariance @ significant)
    return _signed(significant / np.sqrt(variances))


def _discriminant_axes(centred: Matrix, covariance: Matrix, writer_of: NDArray[np.int64]) -> tuple[Matrix, Matrix]:
    """Ratios of total variance to variance within writers, descending, and their axes: (d,), (d, d)."""
    counts = np.bincount(writer_of)
    sums = np.zeros((len(counts), centred.shape[1]))
    np.add.at(sums, writer_of, centred)
    means = sums / np.maximum(counts, 1)[:, None]
    between = (means * counts[:, None]).T @ means / len(centred)
    within = covariance - between
    within[np.diag_indices_from(within)] += RIDGE * max(np.trace(covariance) / len(covariance), np.finfo(float).tiny)
    ratios, axes = eigh(covariance, within)
    return ratios[::-1], axes[:, ::-1]


def _principal_axes(covariance: Matrix, count: int) -> Matrix:
    """The axes of largest variance, partly whitened, with a mean variance of 1: (d, count)."""
    variances, axes = np.linalg.eigh(covariance)  # ascending
    kept, kept_axes = variances[::-1][:count], axes[:, ::-1][:, :count]
    kept = np.maximum(kept, max(float(kept.mean()), float(np.finfo(np.float32).tiny)) * LEAST_VARIANCE)
    scale = kept ** (-WHITENING / 2)  # (count,)
    return _signed(kept_axes * scale / math.sqrt(float(np.mean(kept * scale**2))))


def _signed(axes: Matrix) -> Matrix:
    """Make the largest weight of each axis positive: the sign of an axis is arbitrary and differs between machines."""
    if not axes.shape[1]:
        return axes
    largest = np.abs(axes).argmax(axis=0)
    return axes * np.sign(np.take_along_axis(axes, largest[None], axis=0))
