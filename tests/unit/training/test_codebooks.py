"""Training of codebooks: their error on unseen states, reproducibility, and very few states."""

import numpy as np
import pytest

from ubert_model.states import FloatMatrix, Namespace, make_codec
from ubert_model.states.product_code import Codebooks
from ubert_training.states.codebooks import train_codebooks

STATE_DIM = 16


def anisotropic(reviews: int, seed: int) -> list[FloatMatrix]:
    """States whose variance lies mostly along a few rotated directions, as an encoder's does."""
    random = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(np.random.default_rng(9).standard_normal((STATE_DIM, STATE_DIM)))
    spread = np.geomspace(3, 0.1, STATE_DIM)
    return [
        ((random.standard_normal((20, STATE_DIM)) * spread) @ rotation + 1).astype(np.float32) for _ in range(reviews)
    ]


def relative_error(codebooks: Codebooks, name: str, reviews: list[FloatMatrix]) -> float:
    namespace = Namespace(version="0" * 16, encoder_digest="", codec=name, state_dim=STATE_DIM, max_length=64)
    codec = make_codec(namespace, codebooks)
    rows = np.concatenate(reviews)
    decoded = np.concatenate([codec.decode(codec.encode(review)) for review in reviews])
    return float(np.square(decoded - rows).sum() / np.square(rows - rows.mean(axis=0)).sum())


def test_codebooks_keep_most_of_the_variance_of_unseen_states() -> None:
    codebooks = train_codebooks(anisotropic(200, seed=0), seed=0)
    unseen = anisotropic(50, seed=1)
    assert relative_error(codebooks, "pq2", unseen) < 0.03
    assert relative_error(codebooks, "pq1", unseen) < 0.10


def test_the_same_seed_trains_the_same_codebooks() -> None:
    reviews = anisotropic(30, seed=0)
    first, second = (train_codebooks(reviews, seed=3).of["pq1"] for _ in range(2))
    for part in ("basis", "centroids"):
        np.testing.assert_array_equal(getattr(first, part), getattr(second, part))


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_codebooks_of_few_states_are_finite_and_reproduce_them(rows: int) -> None:
    few = [anisotropic(1, seed=0)[0][:rows]]
    codebooks = train_codebooks(few, seed=0)
    assert all(np.isfinite(array).all() for book in codebooks.of.values() for array in vars(book).values())
    if rows > 1:
        assert relative_error(codebooks, "pq1", few) < 1e-9
