"""Law 1 for co-matching, the prediction layer and the whole rating model: Eq. 12–15."""

from typing import Any

import numpy as np
import pytest
import torch

from reference.layers import part
from reference.rating_prediction import aligned_rating, co_matching, eq15_mean_squared_error, prediction, rating_forward
from support.closeness import assert_equals_reference
from support.random_models import DOMAINS, ITEMS, USERS, random_side, randomized, rating_model, weights_of
from ubert_model.config import MatchPooling
from ubert_model.nn.co_matching import CoMatching, Matches, SideRows
from ubert_model.nn.prediction_layer import PredictionLayer
from ubert_training.optimization.objectives import rating_loss

Lengths = list[list[int]]

SIDES: dict[str, tuple[Lengths, Lengths]] = {
    "single pair": ([[3, 4]], [[5]]),
    "single rows": ([[1]], [[1]]),
    "ragged": ([[2, 3], [6], [1, 1, 1]], [[4], [2, 7], [3]]),
    "one user of many items": ([[4, 2]], [[3], [1, 5], [2], []]),
    "user side empty": ([[], [2]], [[3], [4]]),
    "item side empty": ([[3], [2]], [[], [1, 1]]),
    "both sides empty": ([[], []], [[], []]),
}

OPTIONS: dict[str, dict[str, Any]] = {
    "all options": {"state_dim": 16, "history_ratings": True, "id_embeddings": "shrunk"},
    "the paper's": {"state_dim": None, "history_ratings": False, "id_embeddings": "free", "rating_base": "none"},
    "no identities": {"state_dim": 8, "history_ratings": True, "id_embeddings": "none"},
    "text alone": {"state_dim": None, "history_ratings": False, "id_embeddings": "none"},
    "mean over rows": {"state_dim": 16, "history_ratings": True, "id_embeddings": "shrunk", "match_pooling": "mean"},
}


@pytest.mark.parametrize("lengths", SIDES.values(), ids=SIDES)
@pytest.mark.parametrize(("dim", "pooling"), [(8, "max"), (24, "max"), (24, "mean")])
def test_co_matching_equals_eq_12_to_14_pair_by_pair(
    lengths: tuple[Lengths, Lengths], dim: int, pooling: MatchPooling
) -> None:
    layer = randomized(CoMatching(dim, pooling))
    weights = weights_of(layer)
    user_lengths, item_lengths = lengths
    user, item = random_side(user_lengths, dim, seed=7), random_side(item_lengths, dim, seed=8)
    found = layer(*(SideRows(side.states, side.residuals, side.mask) for side in (user, item)))
    expected = [
        co_matching(part(weights, "kernel"), user.real_states(b % len(user_lengths)), item.real_states(b), pooling)
        for b in range(len(item_lengths))
    ]
    assert_equals_reference(found.user, [user_vector for user_vector, _ in expected])
    assert_equals_reference(found.item, [item_vector for _, item_vector in expected])
    for b in range(len(item_lengths)):
        u = b % len(user_lengths)
        user_states, item_states = user.real_states(u), item.real_states(b)
        assert_equals_reference(found.user_rating[b], aligned_rating(user_states, item_states, item.real_residuals(b)))
        assert_equals_reference(found.item_rating[b], aligned_rating(item_states, user_states, user.real_residuals(u)))


@pytest.mark.parametrize("ratings", [False, True])
def test_prediction_layer_is_linear_in_the_four_vectors_in_the_papers_order(ratings: bool) -> None:
    layer = randomized(PredictionLayer(8, 4.0, dropout=0.1, ratings=ratings))
    generator = torch.Generator().manual_seed(9)
    user, user_match, item, item_match = vectors = torch.randn(4, 3, 8, generator=generator)
    aligned = torch.randn(2, 3, generator=generator)
    weights = part(weights_of(layer), "output")
    expected = [
        prediction(weights, *vectors[:, b].double().numpy(), aligned_ratings=aligned[:, b].tolist() if ratings else ())
        for b in range(3)
    ]
    assert_equals_reference(layer(user, item, Matches(user_match, item_match, *aligned)), expected)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("lengths", SIDES.values(), ids=SIDES)
def test_rating_model_equals_figure_3_pair_by_pair(lengths: tuple[Lengths, Lengths], options: dict[str, Any]) -> None:
    model = rating_model(**options)
    weights = weights_of(model)
    dim = model.review_encoder.dim
    user_side, item_side = random_side(lengths[0], dim, seed=10), random_side(lengths[1], dim, seed=11)
    random = np.random.default_rng(12)
    users = random.integers(0, USERS + 1, len(lengths[0]))
    items = random.integers(0, ITEMS + 1, len(lengths[1]))
    domains = random.integers(0, DOMAINS + 1, len(lengths[1]))
    with torch.no_grad():
        rating = model(
            torch.from_numpy(users),
            torch.from_numpy(items),
            torch.from_numpy(domains),
            user_side.states,
            user_side.residuals,
            user_side.mask,
            item_side.states,
            item_side.residuals,
            item_side.mask,
        )
    knows_ids = options["id_embeddings"] != "none"
    expected = [
        rating_forward(
            weights,
            int(users[b % len(users)]) if knows_ids else 0,
            int(items[b]) if knows_ids else 0,
            int(domains[b]),
            user_side.reviews[b % len(users)],
            item_side.reviews[b],
            model.config.match_pooling,
        )
        for b in range(len(items))
    ]
    assert_equals_reference(rating, expected)


def test_rating_loss_equals_eq_15() -> None:
    predicted, ratings = torch.tensor([4.5, 2.0, 3.25]), torch.tensor([5.0, 1.0, 3.0])
    assert_equals_reference(
        rating_loss(predicted, ratings), eq15_mean_squared_error(predicted.tolist(), ratings.tolist())
    )
