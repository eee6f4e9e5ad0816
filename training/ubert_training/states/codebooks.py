"""Training of the product-quantization codebooks, on states of the training part."""

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ubert_model.bundle import CODEBOOKS
from ubert_model.running.atomic import replacing
from ubert_model.states.codec import POOLINGS
from ubert_model.states.pooling import FloatMatrix, pool_neighbours
from ubert_model.states.product_code import CENTROIDS, PRODUCT_BITS, Codebook, Codebooks, group_shape
from ubert_training.reviews.table import Rows
from ubert_training.states.review_states import ReviewStates

REVIEWS_SAMPLED = 1500
ROWS_PER_POOLING = 7_000
"""Rows sampled at each degree of pooling, so that one codebook serves them all. Twice as many lower the error by 2%."""
KMEANS_ITERATIONS = 12


def codebooks_of(states: ReviewStates, rows: Rows, seed: int) -> Codebooks:
    """Train codebooks on a sample of the reviews at ``rows``."""
    reviews = [review for batch in states.sample(rows, REVIEWS_SAMPLED, seed) for review in states.projected(batch)]
    return train_codebooks(reviews or [np.zeros((0, states.encoder.dim), dtype=np.float32)], seed)


def train_codebooks(reviews: list[FloatMatrix], seed: int) -> Codebooks:
    """Train a codebook for each product code on the states of some reviews, (L, D) each; all zeros without any row."""
    rng = np.random.default_rng(seed)
    sample = np.concatenate([_sample(reviews, pooled, rng) for pooled in POOLINGS])  # (T, D)
    return Codebooks(of={name: _trained(sample, bits, seed) for name, bits in PRODUCT_BITS.items()})


def save_codebooks(codebooks: Codebooks, directory: Path) -> None:
    with replacing(directory / CODEBOOKS) as partial:
        codebooks.save(partial)


def _sample(reviews: list[FloatMatrix], pooled: int, rng: np.random.Generator) -> FloatMatrix:
    rows = np.concatenate([pool_neighbours(review, pooled) for review in reviews])
    return rows[rng.permutation(len(rows))[:ROWS_PER_POOLING]]


def _trained(sample: FloatMatrix, bits: int, seed: int) -> Codebook:
    state_dim = sample.shape[1]
    groups, width = group_shape(state_dim, bits)
    mean = sample.mean(axis=0, dtype=np.float64) if len(sample) else np.zeros(state_dim)
    basis = _balanced_basis(sample - mean, groups, width)  # (D, M · W)
    rotated = (sample @ basis).reshape(len(sample), groups, width)
    centroids = [_centroids(rotated[:, group].astype(np.float32), seed) for group in range(groups)]
    return Codebook(basis=basis.astype(np.float32), centroids=np.stack(centroids).astype(np.float32))


def _balanced_basis(centred: NDArray[np.float64], groups: int, width: int) -> NDArray[np.float64]:
    """Principal directions by group, (D, M · W): each goes to the group with room whose product of variances is least.

    So every group's code carries as much information: the closed form of optimized product quantization (Ge et al.
    2013).
    """
    state_dim = centred.shape[1]
    variances, directions = np.linalg.eigh(centred.T @ centred / max(1, len(centred)))
    floor = max(1e-6 * float(variances[-1]), float(np.finfo(np.float32).tiny))
    basis = np.zeros((state_dim, groups * width))
    log_variance = np.zeros(groups)
    filled = np.zeros(groups, dtype=np.int64)
    for direction in np.argsort(-variances):
        group = int(np.where(filled < width, log_variance, np.inf).argmin())
        basis[:, group * width + filled[group]] = directions[:, direction]
        log_variance[group] += np.log(max(float(variances[direction]), floor) / floor)
        filled[group] += 1
    return basis


def _centroids(rows: FloatMatrix, seed: int) -> FloatMatrix:
    """256 centroids of (T, W) rows; the rows themselves if there are no more distinct ones than that."""
    distinct = np.unique(rows, axis=0) if len(rows) else np.zeros((1, rows.shape[1]), dtype=np.float32)
    if len(distinct) <= CENTROIDS:
        return np.concatenate([distinct, np.repeat(distinct[-1:], CENTROIDS - len(distinct), axis=0)])
    # Imported here because it takes two seconds, which loading a finished model and a small sample can do without.
    from sklearn.cluster import KMeans  # noqa: PLC0415
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415

    with warnings.catch_warnings():
        # Rows that differ only by rounding may leave a centroid without rows; it is never chosen and does no harm.
        warnings.simplefilter("ignore", ConvergenceWarning)
        # float64, because scikit-learn converts float32 rows for every distance, which takes twice the time.
        kmeans = KMeans(CENTROIDS, n_init=1, max_iter=KMEANS_ITERATIONS, tol=0, random_state=seed)
        centers: NDArray[np.float64] = kmeans.fit(rows.astype(np.float64)).cluster_centers_
    return centers.astype(np.float32)
