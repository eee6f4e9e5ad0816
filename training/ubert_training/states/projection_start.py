"""Where the projection of review states starts: at axes that the states themselves show to be of use.

Co-matching aligns rows by their products. From random weights the products of a pre-trained encoder's states are nearly
equal, so every row is aligned to the mean of the other side, and little is learned from few pairs.

What a row should be aligned by is what it speaks of, rather than how: the axes along which *writers* differ from each
other more than they would if reviews were dealt out to them at random, since a writer returns to the same subjects and
praises some items and scolds others. What is said of a subject lies along the principal axes, which are kept small
beside them: small enough not to decide what is aligned, and none the less read by what compares the aligned rows. Where
no axis tells writers apart, the principal axes serve for both. (All measured in the README's Decisions.)
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
"""From a bank; without one they have to be encoded for it."""
REVIEWS_ENCODED = 1000
WHITENING = 0.5
"""A principal axis is divided by its variance to half this power: 0 keeps distances, 1 makes all axes equal."""
SHARPNESS = 0.5
"""Mean variance of the axes that align, in units of √D, by which Eq. 1 and 12 divide products of states."""
BESIDE = 0.2
"""Deviation of the principal axes, where there are others to align by, in units of those."""
RIDGE = 1e-3
"""Of the mean variance, added within writers: a direction in which nobody varies tells nobody apart."""
LEAST_VARIANCE = 1e-6
"""Of the mean: an axis of less is as good as constant and is not blown up."""

ROUNDING = 1e-6
"""Relative: the same writers in another order give the same ratio but for this."""

Matrix = NDArray[np.float64]


def start_projection(states: ReviewStates, rows: Rows, writers: Sequence[str], seed: int) -> None:
    """Set the encoder's projection by a sample of the reviews at ``rows``. An encoder without a projection, or with one
    to more dimensions than it has axes, stays as it is.

    Shape:
        writers: (R,), who has written each review of ``states``.
    """
    encoder = states.encoder
    if not isinstance(encoder.projection, nn.Linear) or encoder.dim > encoder.hidden_dim:
        return
    read: list[NDArray[np.float32]] = []
    review_of: list[int] = []
    for batch in states.sample(rows, REVIEWS_ENCODED if states.bank is None else REVIEWS_READ, seed):
        for row, review in zip(batch.tolist(), states.unprojected(batch), strict=True):
            read.append(review)
            review_of += [row] * len(review)
    if not read:
        return
    joined = np.concatenate(read).astype(np.float64)  # (T, d)
    centre = joined.mean(axis=0)
    weight = _axes(joined - centre, np.array(review_of), writers, encoder.dim, seed)
    with torch.no_grad():
        encoder.projection.weight.copy_(torch.from_numpy(weight))
        encoder.projection.bias.copy_(torch.from_numpy(-weight @ centre))


def _axes(centred: Matrix, review_of: NDArray[np.int64], writers: Sequence[str], dim: int, seed: int) -> Matrix:
    """Weights of a projection, (D, d): axes that tell writers apart, then principal ones."""
    covariance = centred.T @ centred / len(centred)
    telling = telling_axes(centred, covariance, review_of, writers, seed)[:, : dim // 2]  # (d, K)
    principal = _principal_axes(covariance, dim - telling.shape[1])
    unit = math.sqrt(SHARPNESS * math.sqrt(dim))
    if not telling.shape[1]:
        return (unit * principal).T
    return unit * np.concatenate([telling, BESIDE * principal], axis=1).T


def telling_axes(
    centred: Matrix, covariance: Matrix, review_of: NDArray[np.int64], writers: Sequence[str], seed: int
) -> Matrix:
    """Axes along which writers differ more than by chance, the most telling first, each of variance 1: (d, K).

    Fisher's discriminant axes between writers, as many as have a ratio of all variance to that within writers above
    the largest one that is left when whole reviews are dealt out to the same writers at random.

    Shape:
        centred: (T, d); covariance: theirs, (d, d); review_of: (T,), the review of each row; writers: (R,).
    """
    reviews, place = np.unique(review_of, return_inverse=True)
    _, writer_of_review, written = np.unique(
        [writers[review] for review in reviews.tolist()], return_inverse=True, return_counts=True
    )
    if written.max() == 1:
        return np.zeros((centred.shape[1], 0))
    dealt = np.random.default_rng([seed, 31]).permutation(writer_of_review)
    ratios, axes = _discriminant_axes(centred, covariance, writer_of_review[place])
    by_chance, _ = _discriminant_axes(centred, covariance, dealt[place])
    found = axes[:, ratios > by_chance.max() * (1 + ROUNDING)]
    variances = np.einsum("ij,ij->j", found, covariance @ found)
    return _signed(found / np.sqrt(variances))


def _discriminant_axes(centred: Matrix, covariance: Matrix, writer_of: NDArray[np.int64]) -> tuple[Matrix, Matrix]:
    """Ratios of all variance to that within writers, descending, and their axes: (d,), (d, d)."""
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
    """The axes of largest variance, half whitened, of mean variance 1: (d, count)."""
    variances, axes = np.linalg.eigh(covariance)  # ascending
    kept, kept_axes = variances[::-1][:count], axes[:, ::-1][:, :count]
    kept = np.maximum(kept, max(float(kept.mean()), float(np.finfo(np.float32).tiny)) * LEAST_VARIANCE)
    scale = kept ** (-WHITENING / 2)  # (count,)
    return _signed(kept_axes * scale / math.sqrt(float(np.mean(kept * scale**2))))


def _signed(axes: Matrix) -> Matrix:
    """An axis has no direction of its own: its largest weight is made positive, so that all machines agree."""
    if not axes.shape[1]:
        return axes
    largest = np.abs(axes).argmax(axis=0)
    return axes * np.sign(np.take_along_axis(axes, largest[None], axis=0))
