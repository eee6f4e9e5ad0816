"""The ONNX graphs that the online side runs: the review encoder, all above the review states, and its parts."""

import copy
import logging
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import onnx_ir
import torch
from torch import Tensor, nn

from ubert_model.nn.pair_explainer import PairExplainer, PairExplanation
from ubert_model.nn.pair_scorer import PairScorer
from ubert_model.nn.rating_model import RatingModel

OPSET = 20
"""The first operator set with GELU, and one that every supported ONNX Runtime (1.20 on) reads."""

Axes = Mapping[int, str]


def export_encoder(model: RatingModel, path: Path) -> None:
    """Write the review encoder, in fp32: reviews in, states in ``state_dim`` out. States of padding are undefined.

    Shape:
        token_ids (R, L) int64, token_mask (R, L) bool → states (R, L, D); R and L ≤ the backbone's length are free.
    """
    # Sizes of 2 and more: an example of size 1 would be taken for a constant. One row is padded, so that the
    # trace holds the mask.
    token_ids = torch.zeros(3, 5, dtype=torch.int64)
    token_mask = torch.ones(3, 5, dtype=torch.bool)
    token_mask[1, 3:] = False
    tokens: Axes = {0: "R", 1: "L"}
    inputs = {"token_ids": (token_ids, tokens), "token_mask": (token_mask, tokens)}
    _write_graph(model.review_encoder, inputs, ("states",), path)


def export_scorer(model: PairScorer, path: Path) -> None:
    """Write ``PairScorer.forward``, in fp32, for B pairs, or for one user against B items.

    Every argument of ``forward`` is an input of the graph under its own name, those included that the model's
    options ignore, so that one caller serves every model. The encoder's weights are not in the graph.

    Shape:
        user (U,), item (B,), domain (B,) int64; user_states (U, Nu, D), item_states (B, Ni, D) float32;
        residuals float32 and masks bool (U, Nu) and (B, Ni) → rating (B,): the network output. B, Nu and Ni ≥ 1 are
        free; U is B, or 1 for a user that all items share.
    """
    broadcast = ("user", "user_states", "user_residuals", "user_mask")
    _write_graph(model, _pair_inputs(model.dim), ("rating",), path, broadcast=broadcast)


def export_explainer(model: PairScorer, path: Path) -> None:
    """Write ``PairExplainer.forward`` over this model, in fp32, for B pairs.

    Shape:
        the inputs of the scorer, with U = B → the fields of ``PairExplanation``, each an output under its name.
    """
    _write_graph(PairExplainer(model), _pair_inputs(model.dim), PairExplanation._fields, path)


def _pair_inputs(dim: int) -> dict[str, tuple[Tensor, Axes]]:
    """The inputs of what reads pairs: an example of each, and its free axes."""
    B, Nu, Ni, D = 3, 5, 4, dim
    pairs: Axes = {0: "B"}
    user_tokens: Axes = {0: "B", 1: "Nu"}
    item_tokens: Axes = {0: "B", 1: "Ni"}
    return {
        "user": (torch.zeros(B, dtype=torch.int64), pairs),
        "item": (torch.zeros(B, dtype=torch.int64), pairs),
        "domain": (torch.zeros(B, dtype=torch.int64), pairs),
        "user_states": (torch.zeros(B, Nu, D), user_tokens),
        "user_residuals": (torch.zeros(B, Nu), user_tokens),
        "user_mask": (torch.ones(B, Nu, dtype=torch.bool), user_tokens),
        "item_states": (torch.zeros(B, Ni, D), item_tokens),
        "item_residuals": (torch.zeros(B, Ni), item_tokens),
        "item_mask": (torch.ones(B, Ni, dtype=torch.bool), item_tokens),
    }


def _write_graph(
    module: nn.Module,
    inputs: Mapping[str, tuple[Tensor, Axes]],
    outputs: Sequence[str],
    path: Path,
    *,
    broadcast: Collection[str] = (),
) -> None:
    """``broadcast``: inputs whose first axis may also be 1. The trace knows them as large as all others."""
    # A copy: the caller's model keeps its device, its precision and its training mode.
    module = copy.deepcopy(module).cpu().float().eval()
    with _exporter_chatter_ignored():
        program = torch.onnx.export(
            module,
            kwargs={name: example for name, (example, _) in inputs.items()},
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes={name: dict(axes) for name, (_, axes) in inputs.items()},
            opset_version=OPSET,
            verbose=False,
        )
        assert program is not None  # None is the answer of the older exporter alone
        # The exporter annotates every node with the stack trace it came from. Without them the graph names no
        # path of this machine, and the same model gives the same bytes.
        for node in program.model.graph:
            node.metadata_props.clear()
        _free_first_axis(program.model.graph, broadcast)
        program.save(path, external_data=False)


def _free_first_axis(graph: onnx_ir.Graph, broadcast: Collection[str]) -> None:
    """Declare the first axis of some inputs independent of all others, where every operator broadcasts over it."""
    for value in graph.inputs:
        if value.name in broadcast and value.shape is not None:
            value.shape = onnx_ir.Shape(["U", *value.shape[1:]])
    if broadcast:  # what the trace noted of intermediate shapes is then no longer true
        for node in graph:
            for value in node.outputs:
                if value not in graph.outputs:
                    value.shape = None


@contextmanager
def _exporter_chatter_ignored() -> Iterator[None]:
    """Hide what the exporter says of its own code and of its names for axes; everything else passes."""
    registry = logging.getLogger("torch.onnx._internal.exporter._registration")  # "torchvision is not installed"
    level = registry.level
    registry.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)", FutureWarning)
            warnings.filterwarnings("ignore", r"# The axis name: \w+ will not be used", UserWarning)
            yield
    finally:
        registry.setLevel(level)
