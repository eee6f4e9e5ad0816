"""The explainer's contributions add up to the rating, in torch and in its exported graph (law 4)."""

import copy
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from reference.layers import softmax
from support.closeness import assert_equals_reference
from support.random_models import DOMAINS, ITEMS, OTHER_OPTIONS, USERS, random_side, rating_model
from support.tiny_bundle import TinyBundle
from ubert_model.bundle import EXPLAINER_GRAPH
from ubert_model.nn.pair_explainer import PairExplainer, PairExplanation
from ubert_model.nn.rating_model import RatingModel
from ubert_training.export.graphs import export_explainer

LENGTHS = {
    "one token a side": ([[1]], [[1]]),
    "one pair": ([[4, 9]], [[5, 2, 7]]),
    "ragged pairs": ([[4, 9], [1], [7]], [[3], [5, 2], [6, 1]]),
}


def inputs_of(model: RatingModel, user_lengths: list[list[int]], item_lengths: list[list[int]]) -> dict[str, Any]:
    random = np.random.default_rng(3)
    users, items = random_side(user_lengths, model.dim, seed=1), random_side(item_lengths, model.dim, seed=2)
    return {
        **{
            name: torch.from_numpy(random.integers(0, rows + 1, len(item_lengths)))
            for name, rows in (("user", USERS), ("item", ITEMS), ("domain", DOMAINS))
        },
        "user_states": users.states,
        "user_residuals": users.residuals,
        "user_mask": users.mask,
        "item_states": items.states,
        "item_residuals": items.residuals,
        "item_mask": items.mask,
    }


@pytest.fixture(scope="module", params=["all options", *OTHER_OPTIONS])
def options(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(options: str, tiny: TinyBundle) -> RatingModel:
    return copy.deepcopy(tiny.model) if options == "all options" else rating_model(**OTHER_OPTIONS[options])


@pytest.fixture(scope="module")
def graph(
    options: str, model: RatingModel, tiny: TinyBundle, tmp_path_factory: pytest.TempPathFactory
) -> onnxruntime.InferenceSession:
    path = tiny.bundle.file(EXPLAINER_GRAPH)
    if options != "all options":
        path = tmp_path_factory.mktemp("explainer") / "explainer.onnx"
        export_explainer(model, path)
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_the_contributions_add_up_to_the_networks_output(model: RatingModel, lengths: Any) -> None:
    inputs = inputs_of(model, *lengths)
    with torch.no_grad():
        output, parts = model(**inputs), PairExplainer(model)(**inputs)
    total = parts.identity_and_summary + parts.user_contributions.sum(dim=1) + parts.item_contributions.sum(dim=1)
    assert_equals_reference(total, output)


def test_a_token_contributes_what_the_output_loses_without_its_part_of_the_prediction_layer(model: RatingModel) -> None:
    """A side's only token is its whole match vector, so zeroing its part of W_f removes exactly its contribution."""
    inputs = inputs_of(model, [[1]], [[1]])
    weight = model.head.prediction_layer.output.weight
    with torch.no_grad():
        parts, output = PairExplainer(model)(**inputs), model(**inputs)
        kept = weight.clone()
        weight[:, model.dim : 2 * model.dim] = 0
        weight[:, 4 * model.dim + 1 :] = 0  # the user's rating, aligned to the item's row
        without = model(**inputs)
        weight.copy_(kept)
    assert parts.user_contributions.sum() != 0
    assert_equals_reference(parts.user_contributions.sum(dim=1), output - without)


def test_padding_contributes_nothing_and_is_not_attended_to(model: RatingModel) -> None:
    inputs = inputs_of(model, *LENGTHS["ragged pairs"])
    with torch.no_grad():
        parts = PairExplainer(model)(**inputs)
    user_mask, item_mask = inputs["user_mask"], inputs["item_mask"]
    assert (parts.user_contributions[~user_mask] == 0).all()
    assert (parts.item_contributions[~item_mask] == 0).all()
    for attention, mask, other in [
        (parts.user_attention, user_mask, item_mask),
        (parts.item_attention, item_mask, user_mask),
    ]:
        real_rows = attention[mask]  # (tokens, N′)
        torch.testing.assert_close(real_rows.sum(dim=-1), torch.ones(len(real_rows)))
        padding = ~other.repeat_interleave(mask.sum(dim=1), dim=0)
        assert (real_rows[padding] == 0).all()


def test_the_attention_equals_that_of_eq_12(model: RatingModel) -> None:
    inputs = inputs_of(model, *LENGTHS["one pair"])
    with torch.no_grad():
        parts = PairExplainer(model)(**inputs)
        sides = [inputs[f"{side}_states"][0][inputs[f"{side}_mask"][0]] for side in ("user", "item")]
    user, item = (side.double().numpy() for side in sides)
    scores = user @ item.T / np.sqrt(model.dim)
    found = parts.user_attention[0][inputs["user_mask"][0]][:, inputs["item_mask"][0]]
    assert_equals_reference(found, softmax(scores))
    found = parts.item_attention[0][inputs["item_mask"][0]][:, inputs["user_mask"][0]]
    assert_equals_reference(found, softmax(scores.T))


def test_the_explainer_graph_equals_torch_whatever_the_lengths(
    model: RatingModel, graph: onnxruntime.InferenceSession
) -> None:
    assert [output.name for output in graph.get_outputs()] == list(PairExplanation._fields)
    for lengths in LENGTHS.values():
        inputs = inputs_of(model, *lengths)
        with torch.no_grad():
            expected = PairExplainer(model)(**inputs)
        outputs = graph.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        real = {"user_attention": inputs["user_mask"], "item_attention": inputs["item_mask"]}
        for name, values in zip(PairExplanation._fields, outputs, strict=True):
            mask = real.get(name)
            from_torch, from_graph = getattr(expected, name), torch.from_numpy(values)
            if mask is not None:
                from_torch, from_graph = from_torch[mask], from_graph[mask]
            assert_equals_reference(from_graph, from_torch)
