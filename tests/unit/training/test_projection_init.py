"""The projection of review states starts at their principal axes, from reviews of the training part alone."""

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
STRANGERS = [f"writer-{number}" for number in range(REVIEWS)]
"""Each of one review, so that nothing tells them apart."""


def reviews() -> TokenizedReviews:
    starts = np.arange(REVIEWS + 1, dtype=np.int64) * ROWS_A_REVIEW
    return TokenizedReviews(ids=np.ones(starts[-1], dtype=np.int32), starts=starts)


def of(encoder: ReviewEncoder, bank: StateBank) -> ReviewStates:
    return ReviewStates(encoder=encoder, tokens=reviews(), bank=bank)


def bank_of(dim: int, seed: int) -> StateBank:
    """States that vary most along a few directions, far from zero."""
    random = np.random.default_rng(seed)
    axes = np.linalg.qr(random.normal(size=(dim, dim)))[0]
    spread = np.geomspace(3.0, 0.01, dim)
    states = random.normal(size=(REVIEWS * ROWS_A_REVIEW, dim)) * spread @ axes.T + random.normal(size=dim)
    return StateBank(states.astype(np.float32), reviews().starts)


def test_projected_states_are_centred_and_their_products_are_of_one_size_whatever_the_dimension() -> None:
    encoder = review_encoder(state_dim=4)
    bank = bank_of(encoder.hidden_dim, seed=0)
    initialize_projection(of(encoder, bank), np.arange(REVIEWS), STRANGERS, seed=0)
    with torch.no_grad():
        projected = encoder.project(torch.from_numpy(bank.states)).numpy()
    assert projected.mean(axis=0) == pytest.approx(0, abs=1e-4)
    assert projected.var(axis=0).mean() == pytest.approx(SHARPNESS * 4**0.5, abs=1e-3)


def test_the_projection_takes_the_largest_axes_and_makes_their_spreads_more_alike() -> None:
    encoder = review_encoder(state_dim=4)
    bank = bank_of(encoder.hidden_dim, seed=1)
    initialize_projection(of(encoder, bank), np.arange(REVIEWS), STRANGERS, seed=0)
    with torch.no_grad():
        projected = encoder.project(torch.from_numpy(bank.states)).numpy()
    largest = np.linalg.svd(bank.states - bank.states.mean(axis=0), compute_uv=False)[:4]
    kept = np.linalg.svd(projected, compute_uv=False)
    assert kept / kept[0] == pytest.approx((largest / largest[0]) ** (1 - WHITENING), rel=1e-3)


def test_an_axis_without_variance_is_not_blown_up() -> None:
    encoder = review_encoder(state_dim=4)
    bank = bank_of(encoder.hidden_dim, seed=4)
    flat = StateBank((bank.states[:, :1] * np.ones((1, encoder.hidden_dim), dtype=np.float32)), bank.starts)
    initialize_projection(of(encoder, flat), np.arange(REVIEWS), STRANGERS, seed=0)
    with torch.no_grad():
        projected = encoder.project(torch.from_numpy(flat.states)).numpy()
    assert np.isfinite(projected).all()
    assert sorted(projected.std(axis=0))[-2] < 1e-2 * projected.std(axis=0).max()


def test_reviews_outside_the_training_part_change_nothing() -> None:
    one, other = review_encoder(state_dim=4), review_encoder(state_dim=4)
    bank = bank_of(one.hidden_dim, seed=2)
    changed = StateBank(bank.states.copy(), bank.starts)
    changed.states[bank.starts[20] :] = 7.0
    for encoder, states in ((one, bank), (other, changed)):
        initialize_projection(of(encoder, states), np.arange(20), STRANGERS, seed=0)
    assert torch.equal(one.projection.weight, other.projection.weight)


@pytest.mark.parametrize("state_dim", [None, 1000])
def test_an_encoder_without_axes_to_choose_from_stays_as_it_is(state_dim: int | None) -> None:
    encoder = review_encoder(state_dim=state_dim)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    initialize_projection(of(encoder, bank_of(encoder.hidden_dim, seed=3)), np.arange(REVIEWS), STRANGERS, seed=0)
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())


def test_a_corpus_without_text_leaves_the_projection_random() -> None:
    encoder = review_encoder(state_dim=4)
    before = encoder.projection.weight.clone()
    empty = TokenizedReviews(ids=np.zeros(0, dtype=np.int32), starts=np.zeros(4, dtype=np.int64))
    initialize_projection(ReviewStates(encoder=encoder, tokens=empty, bank=None), np.arange(3), STRANGERS, seed=0)
    assert torch.equal(before, encoder.projection.weight)


def rows_of_writers(seed: int, dim: int = 12) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Rows of 60 reviews by 6 writers: each writer has a place of its own along two directions, and all vary widely
    along five others. Gives centred rows, the review of each, and the writer of each review.
    """
    random = np.random.default_rng(seed)
    writers = [f"writer-{number % 6}" for number in range(60)]
    places = random.normal(size=(6, 2))
    review_of = np.repeat(np.arange(60), ROWS_A_REVIEW)
    rows = 0.2 * random.normal(size=(len(review_of), dim))
    rows[:, :2] += places[review_of % 6]
    rows[:, 2:7] *= 20
    return rows - rows.mean(axis=0), review_of, writers


def test_axes_tell_writers_apart_where_they_differ_and_not_where_rows_vary_most() -> None:
    rows, review_of, writers = rows_of_writers(seed=0)
    covariance = rows.T @ rows / len(rows)
    axes = writer_axes(rows, covariance, review_of, writers, seed=0)
    assert axes.shape[1] == 2
    along = rows @ axes
    assert along.var(axis=0) == pytest.approx(1, abs=1e-6)
    assert np.abs(np.linalg.lstsq(along, rows[:, :2], rcond=None)[1]).max() < 0.2 * (rows[:, :2] ** 2).sum(axis=0).min()


def test_writers_who_do_not_differ_are_not_told_apart() -> None:
    rows, review_of, writers = rows_of_writers(seed=1)
    dealt = np.random.default_rng(2).permutation(writers).tolist()
    found = [writer_axes(rows, rows.T @ rows / len(rows), review_of, dealt, seed=seed).shape[1] for seed in range(20)]
    assert np.mean(found) < 2


def test_rows_are_aligned_by_what_tells_writers_apart_and_the_largest_axes_stand_small_beside_it() -> None:
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
