"""Laws 3 and 7 for the modules: padding, order and neighbours never change an output; nothing becomes NaN."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from support.random_models import (
    MAX_POSITIONS,
    VOCABULARY,
    Side,
    pretraining_model,
    random_side,
    randomized,
    rating_model,
    review_encoder,
    tiny_config,
)
from ubert_model.config import MatchPooling
from ubert_model.nn.co_matching import DIFFERENCE_SCALE, CoMatching, Matches, SideRows, masked_scores
from ubert_model.nn.pretraining_heads import OpinionRatingHead
from ubert_model.nn.rating_model import RatingModel
from ubert_model.states.pooling import pool_neighbours

USER_LENGTHS = [[2, 3], [], [6], [1, 1]]
ITEM_LENGTHS = [[4], [2, 5], [], [3]]
SIDE_NAMES = ("states", "residuals", "mask")


def batch(model: RatingModel, user_lengths: list[list[int]], item_lengths: list[list[int]]) -> dict[str, Tensor]:
    """Arguments of ``RatingModel.forward`` by name."""
    dim = model.review_encoder.dim
    sides = {"user": random_side(user_lengths, dim, seed=1), "item": random_side(item_lengths, dim, seed=2)}
    return {
        "user": torch.arange(len(user_lengths)),
        "item": torch.arange(len(item_lengths)) + 1,
        "domain": torch.arange(len(item_lengths)) % 3,
        **{f"{name}_{part}": getattr(side, part) for name, side in sides.items() for part in SIDE_NAMES},
    }


def rate(model: RatingModel, inputs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        rating: Tensor = model(**inputs)
    return rating


@pytest.fixture(scope="module", params=[True, False], ids=["rated history", "unrated history"])
def model(request: pytest.FixtureRequest) -> RatingModel:
    return rating_model(history_ratings=request.param)


@pytest.mark.parametrize("side", ["user", "item"])
@pytest.mark.parametrize("garbage", [0.0, 1e6, -1e15])
def test_a_padded_row_never_changes_a_rating(model: RatingModel, side: str, garbage: float) -> None:
    inputs = batch(model, USER_LENGTHS, ITEM_LENGTHS)
    padded = dict(inputs)
    for part, value in zip(SIDE_NAMES, (garbage, garbage, False), strict=True):
        rows = inputs[f"{side}_{part}"]
        padded[f"{side}_{part}"] = torch.cat([rows, torch.full_like(rows[:, :4], value)], dim=1)
    torch.testing.assert_close(rate(model, padded), rate(model, inputs), rtol=1e-5, atol=1e-5)


def test_batch_neighbours_never_change_a_rating(model: RatingModel) -> None:
    inputs = batch(model, USER_LENGTHS, ITEM_LENGTHS)
    together = rate(model, inputs)
    alone = [
        rate(model, {name: tensor[row : row + 1] for name, tensor in inputs.items()}) for row in range(len(together))
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-5)


def test_one_user_shared_by_all_items_equals_the_user_repeated(model: RatingModel) -> None:
    shared = batch(model, USER_LENGTHS[:1], ITEM_LENGTHS)
    repeated = {
        name: tensor.repeat_interleave(len(ITEM_LENGTHS), dim=0) if name.startswith("user") else tensor
        for name, tensor in shared.items()
    }
    torch.testing.assert_close(rate(model, shared), rate(model, repeated), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("side", ["user", "item"])
def test_the_order_of_rows_never_changes_a_rating(model: RatingModel, side: str) -> None:
    inputs = batch(model, USER_LENGTHS, ITEM_LENGTHS)
    order = torch.randperm(inputs[f"{side}_mask"].shape[1], generator=torch.Generator().manual_seed(3))
    shuffled = {
        **inputs, **{f"{side}_{part}": inputs[f"{side}_{part}"][:, order] for part in SIDE_NAMES}
    }  # fmt: skip
    torch.testing.assert_close(rate(model, shuffled), rate(model, inputs), rtol=1e-5, atol=1e-5)


def matches(layer: CoMatching, user: Side, item: Side) -> Matches:
    found: Matches = layer(*(SideRows(side.states, side.residuals, side.mask) for side in (user, item)))
    return found


def test_swapping_user_and_item_swaps_their_matches() -> None:
    layer = randomized(CoMatching(8))
    user, item = random_side([[4], [2]], 8, seed=4), random_side([[3], [5]], 8, seed=5)
    forward = matches(layer, user, item)
    backward = matches(layer, item, user)
    expected = Matches(backward.item, backward.user, backward.item_rating, backward.user_rating)
    torch.testing.assert_close(forward, expected)


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_the_row_shares_of_a_side_add_up_to_its_match_vector(pooling: MatchPooling) -> None:
    layer = randomized(CoMatching(8, pooling))
    side = random_side([[4], [2], []], 8, seed=6)
    shares = layer.row_shares(side.states, side.mask)
    torch.testing.assert_close(shares.sum(dim=1), layer.pooled(side.states, side.mask))
    assert (shares[~side.mask] == 0).all()


def test_init_as_difference_gives_the_tanh_of_alignment_minus_row() -> None:
    layer = randomized(CoMatching(8, "mean"))
    layer.init_as_difference()
    user, item = random_side([[4], [2]], 8, seed=4), random_side([[3], [5]], 8, seed=5)
    scores = masked_scores(user.states, user.mask, item.states, item.mask)
    aligned = scores.softmax(dim=-1) @ item.states
    differences = torch.tanh(DIFFERENCE_SCALE * (aligned - user.states)).masked_fill(~user.mask.unsqueeze(-1), 0.0)
    expected = differences.sum(dim=1) / user.mask.sum(dim=1, keepdim=True)
    torch.testing.assert_close(matches(layer, user, item).user, expected)


def test_co_matching_in_bfloat16_returns_the_type_of_its_states() -> None:
    layer = randomized(CoMatching(8))
    user, item = random_side([[4], [2], []], 8, seed=4), random_side([[3], [5], [1]], 8, seed=5)
    exact = matches(layer, user, item)
    for found, expected in zip(matches(layer.to(torch.bfloat16), user, item), exact, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0.05)  # and of the same type


def test_every_dropout_of_the_model_is_applied_to_a_rating() -> None:
    model = rating_model()
    dropouts = {name for name, module in model.head.named_modules() if isinstance(module, nn.Dropout)}
    applied: set[str] = set()
    for name in dropouts:
        model.head.get_submodule(name).register_forward_hook(lambda *_, name=name: applied.add(name))
    rate(model, batch(model, USER_LENGTHS, ITEM_LENGTHS))
    assert applied == dropouts
    assert len(dropouts) == 5  # the summary and the feed-forward of each encoder, and the input of the prediction layer


@pytest.mark.parametrize("tokens_a_row", [1, 2, 3, 7])
def test_training_pools_rows_as_the_store_does(tokens_a_row: int) -> None:
    encoder = review_encoder(state_dim=8)
    encoder.tokens_a_row = tokens_a_row
    lengths = [1, 2, 5, 8, 1]
    states = torch.randn(sum(lengths), 8, generator=torch.Generator().manual_seed(1))
    expected = [pool_neighbours(review.numpy(), tokens_a_row) for review in states.split(lengths)]
    torch.testing.assert_close(encoder.pool(states, torch.tensor(lengths)), torch.from_numpy(np.concatenate(expected)))


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_a_side_without_tokens_has_a_match_vector_and_aligned_ratings_of_zero(pooling: MatchPooling) -> None:
    layer = randomized(CoMatching(8, pooling))
    user, item = random_side([[]], 8, seed=4), random_side([[3]], 8, seed=5)
    found = matches(layer, user, item)
    assert (found.user == 0).all()
    assert found.item.abs().sum() > 0
    assert (float(found.user_rating), float(found.item_rating)) == (0, 0)


EMPTINESS = {"user": ([[]], [[3]]), "item": ([[3]], [[]]), "both": ([[]], [[]]), "some": (USER_LENGTHS, ITEM_LENGTHS)}


@pytest.mark.parametrize(("user_lengths", "item_lengths"), EMPTINESS.values(), ids=EMPTINESS)
def test_empty_sides_give_finite_ratings_and_gradients_and_padding_gets_no_gradient(
    model: RatingModel, user_lengths: list[list[int]], item_lengths: list[list[int]]
) -> None:
    inputs = batch(model, user_lengths, item_lengths)
    for side in ("user", "item"):
        inputs[f"{side}_states"].requires_grad_()
    model.zero_grad()
    rating = model(**inputs)
    rating.sum().backward()
    assert rating.isfinite().all()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert "head.prediction_layer.output.weight" in gradients
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    for side in ("user", "item"):
        gradient = inputs[f"{side}_states"].grad
        assert gradient is not None
        assert gradient.isfinite().all()
        assert (gradient[~inputs[f"{side}_mask"]] == 0).all()


def test_a_padded_token_never_changes_a_review_state() -> None:
    encoder = review_encoder(16)
    random = torch.Generator().manual_seed(6)
    token_ids = torch.randint(VOCABULARY, (3, 9), generator=random)
    token_mask = torch.arange(9) < torch.tensor([[9], [4], [1]])
    padded_ids = torch.cat([token_ids, torch.randint(VOCABULARY, (3, MAX_POSITIONS - 9), generator=random)], dim=1)
    padded_mask = torch.arange(MAX_POSITIONS) < torch.tensor([[9], [4], [1]])
    padded_ids[padded_mask] = token_ids[token_mask]
    with torch.no_grad():
        states, padded = encoder(token_ids, token_mask), encoder(padded_ids, padded_mask)
        alone = encoder(token_ids[1:2, :4], token_mask[1:2, :4])
    torch.testing.assert_close(padded[padded_mask], states[token_mask], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(states[1, :4], alone[0], rtol=1e-5, atol=1e-5)


def test_a_review_of_padding_alone_gives_finite_states_and_gradients() -> None:
    encoder = review_encoder(16)
    states = encoder(torch.zeros(2, 5, dtype=torch.int64), torch.tensor([[True] * 5, [False] * 5]))
    states.sum().backward()
    assert states.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in encoder.parameters() if parameter.grad is not None)


def test_pretraining_on_a_batch_without_any_masked_token_has_no_token_logits() -> None:
    model = pretraining_model()
    token_ids, mask = torch.ones(2, 4, dtype=torch.int64), torch.ones(2, 4, dtype=torch.bool)
    output = model(torch.tensor([0, 1]), torch.tensor([0, 1]), token_ids, mask, ~mask)
    assert output.token_logits.shape == (0, VOCABULARY)
    assert output.rating.isfinite().all()


def test_a_user_replaced_by_the_unknown_one_in_pre_training_is_unknown_to_both_tasks() -> None:
    model = pretraining_model(id_embeddings="free")
    ones = torch.ones(40, 1, dtype=torch.int64)
    unknown, known = (model(user * ones[:, 0], ones[:, 0], ones, ones.bool(), ones.bool()) for user in (0, 3))
    model.user_query.train()
    model.user_query.unknown_rate = 0.5
    torch.manual_seed(0)
    found = model(3 * ones[:, 0], ones[:, 0], ones, ones.bool(), ones.bool())
    replaced = (found.rating - unknown.rating).abs() < (found.rating - known.rating).abs()
    assert 0 < replaced.sum() < len(ones)
    torch.testing.assert_close(
        found.token_logits, torch.where(replaced[:, None], unknown.token_logits, known.token_logits)
    )


@pytest.mark.parametrize(("rating_base", "expected"), [("none", 4.2), ("leave_one_out_bias", 0.0)])
def test_an_untrained_prediction_layer_starts_at_the_mean_or_at_zero_above_the_bias(
    rating_base: str, expected: float
) -> None:
    config = tiny_config(rating_base=rating_base, history_ratings=False)
    model = RatingModel(review_encoder(16), config, users=1, items=1, domains=1, mean_rating=4.2)
    assert model.head.prediction_layer.output.bias.item() == pytest.approx(expected)


def test_an_untrained_opinion_rating_starts_at_the_mean() -> None:
    assert OpinionRatingHead(8, mean_rating=4.2).output.bias.item() == pytest.approx(4.2)


@pytest.mark.parametrize("history_ratings", [True, False])
def test_the_ratings_of_a_history_count_only_if_the_model_reads_them(history_ratings: bool) -> None:
    model = rating_model(history_ratings=history_ratings)
    inputs = batch(model, USER_LENGTHS, ITEM_LENGTHS)
    opposite = {**inputs, "user_residuals": -inputs["user_residuals"]}
    assert torch.equal(rate(model, inputs), rate(model, opposite)) is not history_ratings


@pytest.mark.parametrize(("row", "expected"), [(0, 1.0), (1, -1.0)])
def test_a_row_is_aligned_to_the_residual_of_the_other_sides_most_similar_row(row: int, expected: float) -> None:
    layer = randomized(CoMatching(8))
    states = 6.0 * torch.eye(8)
    found: Matches = layer(
        SideRows(states[None, [row]], torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool)),
        SideRows(states[None, :2], torch.tensor([[1.0, -1.0]]), torch.ones(1, 2, dtype=torch.bool)),
    )
    assert found.user_rating.item() == pytest.approx(expected, abs=1e-3)


def test_equal_residuals_are_aligned_to_their_value_whatever_the_states() -> None:
    layer = randomized(CoMatching(8))
    user, item = random_side([[4], [2]], 8, seed=4), random_side([[3], [5]], 8, seed=5)
    found = matches(layer, user, replace(item, residuals=torch.full_like(item.residuals, 0.7)))
    torch.testing.assert_close(found.user_rating, torch.full((2,), 0.7))
