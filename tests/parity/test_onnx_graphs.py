"""Law 4: in fp32 on the CPU, the exported graphs equal torch within 1e-5, absolute plus relative."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from support.closeness import assert_equals_reference
from support.random_models import (
    DOMAINS,
    ITEMS,
    MAX_POSITIONS,
    OTHER_OPTIONS,
    USERS,
    VOCABULARY,
    Side,
    random_side,
    rating_model,
)
from support.tiny_bundle import TinyBundle
from ubert_model.bundle import ENCODER_GRAPH, SCORER_GRAPH
from ubert_model.nn.rating_model import RatingModel
from ubert_training.export.graphs import export_scorer

SCORER_INPUTS = (
    "user",
    "item",
    "domain",
    "user_states",
    "user_residuals",
    "user_mask",
    "item_states",
    "item_residuals",
    "item_mask",
)


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def run(graph: onnxruntime.InferenceSession, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    (output,) = graph.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    return torch.from_numpy(output)


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """A model in evaluation mode, the graph exported from it, and a session over that graph."""

    model: RatingModel
    path: Path
    graph: onnxruntime.InferenceSession


@pytest.fixture(scope="module", params=["all options", *OTHER_OPTIONS])
def scorer(request: pytest.FixtureRequest, tiny: TinyBundle, tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    if request.param == "all options":
        path = tiny.bundle.file(SCORER_GRAPH)
        return Scorer(model=tiny.model, path=path, graph=session(path))
    # In training mode and bfloat16, as a caller may leave it: either would show in the graph.
    model = rating_model(**OTHER_OPTIONS[request.param]).train().bfloat16()
    path = tmp_path_factory.mktemp("scorer") / "scorer.onnx"
    export_scorer(model, path)
    assert model.training
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert list(path.parent.iterdir()) == [path]
    return Scorer(model=model.float().eval(), path=path, graph=session(path))


@pytest.fixture(scope="module")
def encoder_graph(tiny: TinyBundle) -> onnxruntime.InferenceSession:
    return session(tiny.bundle.file(ENCODER_GRAPH))


def scorer_inputs(user_side: Side, item_side: Side, seed: int) -> dict[str, torch.Tensor]:
    random = np.random.default_rng(seed)
    B = len(item_side.reviews)
    rows = (
        random.integers(0, USERS + 1, len(user_side.reviews)),
        random.integers(0, ITEMS + 1, B),
        random.integers(0, DOMAINS + 1, B),
    )
    tensors = [torch.from_numpy(row) for row in rows]
    for side in (user_side, item_side):
        tensors += [side.states, side.residuals, side.mask]
    return dict(zip(SCORER_INPUTS, tensors, strict=True))


@pytest.mark.parametrize("user_lengths", [[], [1], [4, 9]], ids=["no user review", "one token", "two reviews"])
@pytest.mark.parametrize(
    "item_lengths",
    [[[1]], [[]], [[5, 2]], [[3], [], [2, 4], [6]], [[]] * 3],
    ids=["one item of one token", "one without review", "one item", "many items", "many without review"],
)
@pytest.mark.parametrize("spare_rows", [0, 3], ids=["unpadded", "padded"])
def test_scorer_graph_equals_torch_for_any_number_of_items_and_tokens(
    scorer: Scorer, user_lengths: list[int], item_lengths: list[list[int]], spare_rows: int
) -> None:
    dim = scorer.model.review_encoder.dim
    inputs = scorer_inputs(
        random_side([user_lengths], dim, seed=1, spare_rows=spare_rows),
        random_side(item_lengths, dim, seed=2, spare_rows=spare_rows),
        seed=3,
    )
    with torch.no_grad():
        expected = scorer.model(**inputs)
    assert expected.isfinite().all()
    assert_equals_reference(run(scorer.graph, inputs), expected)


@pytest.mark.parametrize("pairs", [1, 2, 4])
def test_one_graph_serves_pairs_of_different_users_and_items_of_one_user(scorer: Scorer, pairs: int) -> None:
    dim = scorer.model.dim
    users = random_side([[4, 9], [1], [], [7]][:pairs], dim, seed=4)
    items = random_side([[3], [5, 2], [6], []][:pairs], dim, seed=5)
    inputs = scorer_inputs(users, items, seed=6)
    one_user = scorer_inputs(random_side([[4, 9]], dim, seed=4), items, seed=6)
    for each in (inputs, one_user, inputs):  # alternating: the runtime must not reuse one shape's plan for the other
        with torch.no_grad():
            expected = scorer.model(**each)
        assert_equals_reference(run(scorer.graph, each), expected)


def test_scorer_graph_keeps_every_input_under_its_name_whatever_the_options(scorer: Scorer) -> None:
    assert tuple(graph_input.name for graph_input in scorer.graph.get_inputs()) == SCORER_INPUTS
    assert [output.name for output in scorer.graph.get_outputs()] == ["rating"]


def test_scorer_graph_declares_its_axes_by_the_letters_of_the_glossary(scorer: Scorer) -> None:
    user, item, dim = ["U", "Nu"], ["B", "Ni"], scorer.model.dim
    graph = onnx.load(scorer.path).graph  # the file itself, because a session infers what is not declared
    declared = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert declared == {
        "user": ["U"],
        "item": ["B"],
        "domain": ["B"],
        "user_states": [*user, dim],
        "user_residuals": user,
        "user_mask": user,
        "item_states": [*item, dim],
        "item_residuals": item,
        "item_mask": item,
        "rating": ["B"],
    }


def test_scorer_graph_holds_no_weights_of_the_encoder_and_no_path(scorer: Scorer) -> None:
    assert str(Path(__file__).parents[2]).encode() not in scorer.path.read_bytes()
    weights = {initializer.name for initializer in onnx.load(scorer.path).graph.initializer}
    assert any("co_matching" in name for name in weights)
    assert not any("bert" in name for name in weights)


@pytest.mark.parametrize("scorer", ["mean over rows"], indirect=True)
def test_the_same_model_is_exported_to_the_same_bytes(scorer: Scorer, tmp_path: Path) -> None:
    export_scorer(scorer.model, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == scorer.path.read_bytes()


@pytest.mark.parametrize("lengths", [[1], [7], [1, 1], [4, 9, 1], [MAX_POSITIONS, 3], [5, 0, 2], [0]], ids=str)
def test_encoder_graph_equals_torch_on_real_tokens_and_is_finite_on_padding(
    tiny: TinyBundle, encoder_graph: onnxruntime.InferenceSession, lengths: list[int]
) -> None:
    L = max(*lengths, 1)
    token_ids = torch.randint(VOCABULARY, (len(lengths), L), generator=torch.Generator().manual_seed(4))
    inputs = {"token_ids": token_ids, "token_mask": torch.arange(L) < torch.tensor(lengths)[:, None]}
    with torch.no_grad():
        expected = tiny.model.review_encoder(**inputs)
    states = run(encoder_graph, inputs)
    assert states.shape == expected.shape
    assert states.isfinite().all()
    assert expected.isfinite().all()
    assert_equals_reference(states[inputs["token_mask"]], expected[inputs["token_mask"]])


def test_encoder_graph_names_its_inputs_and_its_output(encoder_graph: onnxruntime.InferenceSession) -> None:
    assert [graph_input.name for graph_input in encoder_graph.get_inputs()] == ["token_ids", "token_mask"]
    assert [output.name for output in encoder_graph.get_outputs()] == ["states"]
