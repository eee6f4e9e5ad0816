"""Export of the ONNX graphs that the service runs: the review encoder, the pair scorer and the pair explainer."""

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
"""The first operator set with GELU; every supported ONNX Runtime (1.20 or newer) reads it."""

Axes = Mapping[int, str]


def export_encoder(model: RatingModel, path: Path) -> None:
    """Write the review encoder, in fp32: reviews in, projected states out. States of padding are undefined.

    Shape:
        token_ids (R, L) int64, token_mask (R, L) bool → states (R, L, D); R and L ≤ the backbone's length are free.
    """
    # Sizes of 2 or more, because the exporter treats a size of 1 as constant. One row is padded, so that the trace
    # contains the mask.
    token_ids = torch.zeros(3, 5, dtype=torch.int64)
    token_mask = torch.ones(3, 5, dtype=torch.bool)
    token_mask[1, 3:] = False
    tokens: Axes = {0: "R", 1: "L"}
    inputs = {"token_ids": (token_ids, tokens), "token_mask": (token_mask, tokens)}
    _write_graph(model.review_encoder, inputs, ("states",), path)


def export_scorer(model: PairScorer, path: Path) -> None:
    """Write ``PairScorer.forward``, in fp32, for B pairs, or for one user against B items.

    Every argument of ``forward`` is an input of the graph under its own name, even if the model's options ignore it, so
    that all models are called alike. The encoder's weights are not in the graph.

    Shape:
        user (U,), item (B,), domain (B,) int64; user_states (U, Nu, D), item_states (B, Ni, D) float32;
        residuals float32 and masks bool (U, Nu) and (B, Ni) → rating (B,): the network output. B, Nu and Ni ≥ 1 are
        free; U is B, or 1 for a user that all items share.
    """
    broadcast = ("user", "user_states", "user_residuals", "user_mask")
    _write_graph(model, _pair_inputs(model.dim), ("rating",), path, broadcast=broadcast)


def export_explainer(model: PairScorer, path: Path) -> None:
    """Write ``PairExplainer.forward`` for this model, in fp32, for B pairs.

    Shape:
        the inputs of the scorer, with U = B → the fields of ``PairExplanation``, each an output under its own name.
    """
    _write_graph(PairExplainer(model), _pair_inputs(model.dim), PairExplanation._fields, path)


def _pair_inputs(dim: int) -> dict[str, tuple[Tensor, Axes]]:
    """The inputs of the scorer and the explainer: an example of each, and its free axes."""
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
    """Export ``module``. The inputs in ``broadcast`` may also have a first axis of 1, unlike in the trace."""
    # A copy: the caller's model keeps its device, its precision and its training mode.
    module = copy.deepcopy(module).cpu().float().eval()
    with _exporter_warnings_ignored():
        program = torch.onnx.export(
            module,
            kwargs={name: example for name, (example, _) in inputs.items()},
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes={name: dict(axes) for name, (_, axes) in inputs.items()},
            opset_version=OPSET,
            verbose=False,
        )
        assert program is not None  # only the older exporter returns None
        # The exporter annotates every node with its stack trace. Without these the graph contains no path of this
        # machine, and the same model gives the same bytes.
        for node in program.model.graph:
            node.metadata_props.clear()
        _free_first_axis(program.model.graph, broadcast)
        program.save(path, external_data=False)


def _free_first_axis(graph: onnx_ir.Graph, broadcast: Collection[str]) -> None:
    """Make the first axis of some inputs independent of all others; every operator must broadcast over it."""
    for value in graph.inputs:
        if value.name in broadcast and value.shape is not None:
            value.shape = onnx_ir.Shape(["U", *value.shape[1:]])
    if broadcast:  # the traced shapes of intermediate values no longer hold
        for node in graph:
            for value in node.outputs:
                if value not in graph.outputs:
                    value.shape = None


@contextmanager
def _exporter_warnings_ignored() -> Iterator[None]:
    """Ignore the exporter's warnings about its own code and about names of axes, and no others."""
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
