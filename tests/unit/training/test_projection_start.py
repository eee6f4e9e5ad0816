"""The projection of review states starts at their principal axes, from reviews of the training part alone."""

import numpy as np
import pytest
import torch

from support.random_models import review_encoder
from ubert_training.finetuning.projection_start import SHARPNESS, WHITENING, start_projection
from ubert_training.states.state_bank import StateBank
from ubert_training.tokens import TokenizedReviews

CPU = torch.device("cpu")
ROWS_A_REVIEW = 20
REVIEWS = 30


def reviews() -> TokenizedReviews:
    starts = np.arange(REVIEWS + 1, dtype=np.int64) * ROWS_A_REVIEW
    return TokenizedReviews(ids=np.ones(starts[-1], dtype=np.int32), starts=starts)


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
    start_projection(encoder, reviews(), np.arange(REVIEWS), bank, CPU, seed=0)
    with torch.no_grad():
        projected = encoder.project(torch.from_numpy(bank.states)).numpy()
    assert projected.mean(axis=0) == pytest.approx(0, abs=1e-4)
    assert projected.var(axis=0).mean() == pytest.approx(SHARPNESS * 4**0.5, abs=1e-3)


def test_the_projection_takes_the_largest_axes_and_makes_their_spreads_more_alike() -> None:
    encoder = review_encoder(state_dim=4)
    bank = bank_of(encoder.hidden_dim, seed=1)
    start_projection(encoder, reviews(), np.arange(REVIEWS), bank, CPU, seed=0)
    with torch.no_grad():
        projected = encoder.project(torch.from_numpy(bank.states)).numpy()
    largest = np.linalg.svd(bank.states - bank.states.mean(axis=0), compute_uv=False)[:4]
    kept = np.linalg.svd(projected, compute_uv=False)
    assert kept / kept[0] == pytest.approx((largest / largest[0]) ** (1 - WHITENING), rel=1e-3)


def test_an_axis_without_variance_is_not_blown_up() -> None:
    encoder = review_encoder(state_dim=4)
    bank = bank_of(encoder.hidden_dim, seed=4)
    flat = StateBank((bank.states[:, :1] * np.ones((1, encoder.hidden_dim), dtype=np.float32)), bank.starts)
    start_projection(encoder, reviews(), np.arange(REVIEWS), flat, CPU, seed=0)
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
        start_projection(encoder, reviews(), np.arange(20), states, CPU, seed=0)
    assert torch.equal(one.projection.weight, other.projection.weight)


@pytest.mark.parametrize("state_dim", [None, 1000])
def test_an_encoder_without_axes_to_choose_from_stays_as_it_is(state_dim: int | None) -> None:
    encoder = review_encoder(state_dim=state_dim)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    start_projection(encoder, reviews(), np.arange(REVIEWS), bank_of(encoder.hidden_dim, seed=3), CPU, seed=0)
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())


def test_a_corpus_without_text_leaves_the_projection_random() -> None:
    encoder = review_encoder(state_dim=4)
    before = encoder.projection.weight.clone()
    empty = TokenizedReviews(ids=np.zeros(0, dtype=np.int32), starts=np.zeros(4, dtype=np.int64))
    start_projection(encoder, empty, np.arange(3), None, CPU, seed=0)
    assert torch.equal(before, encoder.projection.weight)
