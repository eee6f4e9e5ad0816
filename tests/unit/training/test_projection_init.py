"""Initialization of the projection of review states: writer axes, principal axes, and the reviews that it reads."""

import numpy as np
import pytest
import torch

from support.random_models import review_encoder
from ubert_model.nn.review_encoder import ReviewEncoder
from ubert_training.states.projection_init import (
    PRINCIPAL_SCALE,
    SHARPNESS,
    WHITENING,
    initialize_projection,
    writer_axes,
)
from ubert_training.states.review_states import ReviewStates
from ubert_training.states.state_bank import StateBank
from ubert_training.states.tokens import TokenizedReviews

ROWS_A_REVIEW = 20
REVIEWS = 30
ONE_REVIEW_EACH = [f"writer-{number}" for number in range(REVIEWS)]
"""Writers of one review each, whom no axis can distinguish."""


def tokenized() -> TokenizedReviews:
    starts = np.arange(REVIEWS + 1, dtype=np.int64) * ROWS_A_REVIEW
    return TokenizedReviews(ids=np.ones(starts[-1], dtype=np.int32), starts=starts)


def states_of(encoder: ReviewEncoder, bank: StateBank) -> ReviewStates:
    return ReviewStates(encoder=encoder, tokens=tokenized(), bank=bank)


def bank_of(dim: int, seed: int) -> StateBank:
    """States that vary most along a few directions, far from zero."""
    random = np.random.default_rng(seed)
    axes = np.linalg.qr(random.normal(size=(dim, dim)))[0]
    spread = np.geomspace(3.0, 0.01, dim)
    states = random.normal(size=(REVIEWS * ROWS_A_REVIEW, dim)) * spread @ axes.T + random.normal(size=dim)
    return StateBank(states.astype(np.float32), tokenized().starts)


def test_projected_states_are_centred_and_have_the_mean_variance_that_sharpness_sets() -> None:
    encoder = review_encoder(state_dim=4)
    bank = bank_of(encoder.hidden_dim, seed=0)
    initialize_projection(states_of(encoder, bank), np.arange(REVIEWS), ONE_REVIEW_EACH, seed=0)
    with torch.no_grad():
        projected = encoder.project(torch.from_numpy(bank.states)).numpy()
    assert projected.mean(axis=0) == pytest.approx(0, abs=1e-4)
    assert projected.var(axis=0).mean() == pytest.approx(SHARPNESS * 4**0.5, abs=1e-3)


def test_the_projection_takes_the_largest_principal_axes_and_whitens_them_partly() -> None:
    encoder = review_encoder(state_dim=4)
    bank = bank_of(encoder.hidden_dim, seed=1)
    initialize_projection(states_of(encoder, bank), np.arange(REVIEWS), ONE_REVIEW_EACH, seed=0)
    with torch.no_grad():
        projected = encoder.project(torch.from_numpy(bank.states)).numpy()
    largest = np.linalg.svd(bank.states - bank.states.mean(axis=0), compute_uv=False)[:4]
    kept = np.linalg.svd(projected, compute_uv=False)
    assert kept / kept[0] == pytest.approx((largest / largest[0]) ** (1 - WHITENING), rel=1e-3)


def test_an_axis_without_variance_is_not_scaled_up() -> None:
    encoder = review_encoder(state_dim=4)
    bank = bank_of(encoder.hidden_dim, seed=4)
    flat = StateBank((bank.states[:, :1] * np.ones((1, encoder.hidden_dim), dtype=np.float32)), bank.starts)
    initialize_projection(states_of(encoder, flat), np.arange(REVIEWS), ONE_REVIEW_EACH, seed=0)
    with torch.no_grad():
        projected = encoder.project(torch.from_numpy(flat.states)).numpy()
    assert np.isfinite(projected).all()
    assert sorted(projected.std(axis=0))[-2] < 1e-2 * projected.std(axis=0).max()


def test_reviews_outside_the_given_rows_change_nothing() -> None:
    one, other = review_encoder(state_dim=4), review_encoder(state_dim=4)
    bank = bank_of(one.hidden_dim, seed=2)
    changed = StateBank(bank.states.copy(), bank.starts)
    changed.states[bank.starts[20] :] = 7.0
    for encoder, states in ((one, bank), (other, changed)):
        initialize_projection(states_of(encoder, states), np.arange(20), ONE_REVIEW_EACH, seed=0)
    assert torch.equal(one.get_parameter("projection.weight"), other.get_parameter("projection.weight"))


@pytest.mark.parametrize("state_dim", [None, 1000])
def test_an_encoder_whose_projection_does_not_reduce_the_dimension_is_unchanged(state_dim: int | None) -> None:
    encoder = review_encoder(state_dim=state_dim)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    initialize_projection(
        states_of(encoder, bank_of(encoder.hidden_dim, seed=3)), np.arange(REVIEWS), ONE_REVIEW_EACH, seed=0
    )
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())


def test_a_corpus_without_text_leaves_the_projection_random() -> None:
    encoder = review_encoder(state_dim=4)
    before = encoder.get_parameter("projection.weight").clone()
    empty = TokenizedReviews(ids=np.zeros(0, dtype=np.int32), starts=np.zeros(4, dtype=np.int64))
    initialize_projection(ReviewStates(encoder=encoder, tokens=empty, bank=None), np.arange(3), ONE_REVIEW_EACH, seed=0)
    assert torch.equal(before, encoder.get_parameter("projection.weight"))


def rows_of_writers(seed: int, dim: int = 12) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Centred rows of 60 reviews by 6 writers, the review of each row, and the writer of each review.

    Each writer has a mean of its own along two directions; along five others all rows vary widely.
    """
    random = np.random.default_rng(seed)
    writers = [f"writer-{number % 6}" for number in range(60)]
    means = random.normal(size=(6, 2))
    review_of = np.repeat(np.arange(60), ROWS_A_REVIEW)
    rows = 0.2 * random.normal(size=(len(review_of), dim))
    rows[:, :2] += means[review_of % 6]
    rows[:, 2:7] *= 20
    return rows - rows.mean(axis=0), review_of, writers


def test_writer_axes_span_the_directions_in_which_writers_differ() -> None:
    rows, review_of, writers = rows_of_writers(seed=0)
    covariance = rows.T @ rows / len(rows)
    axes = writer_axes(rows, covariance, review_of, writers, seed=0)
    assert axes.shape[1] == 2
    along = rows @ axes
    assert along.var(axis=0) == pytest.approx(1, abs=1e-6)
    assert np.abs(np.linalg.lstsq(along, rows[:, :2], rcond=None)[1]).max() < 0.2 * (rows[:, :2] ** 2).sum(axis=0).min()


def test_writers_assigned_at_random_have_hardly_any_axes() -> None:
    rows, review_of, writers = rows_of_writers(seed=1)
    permuted = np.random.default_rng(2).permutation(writers).tolist()
    covariance = rows.T @ rows / len(rows)
    counts = [writer_axes(rows, covariance, review_of, permuted, seed=seed).shape[1] for seed in range(20)]
    assert np.mean(counts) < 2


def test_writer_axes_come_first_and_principal_axes_are_scaled_down() -> None:
    rows, _, writers = rows_of_writers(seed=3, dim=review_encoder(state_dim=4).hidden_dim)
    encoder = review_encoder(state_dim=4)
    starts = np.arange(61, dtype=np.int64) * ROWS_A_REVIEW
    tokens = TokenizedReviews(ids=np.ones(starts[-1], dtype=np.int32), starts=starts)
    bank = StateBank(rows.astype(np.float32), starts)
    initialize_projection(ReviewStates(encoder=encoder, tokens=tokens, bank=bank), np.arange(60), writers, seed=0)
    with torch.no_grad():
        spread = encoder.project(torch.from_numpy(rows.astype(np.float32))).numpy().std(axis=0)
    unit = np.sqrt(SHARPNESS * 4**0.5)
    assert spread[:2] == pytest.approx(unit, rel=1e-3)
    assert np.sqrt((spread[2:] ** 2).mean()) == pytest.approx(PRINCIPAL_SCALE * unit, rel=1e-3)
