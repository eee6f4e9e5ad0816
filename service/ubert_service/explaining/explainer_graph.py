"""The explainer graph, which decomposes the network's output for a pair into additive parts."""

from pathlib import Path
from typing import NamedTuple, Protocol

from ubert_model.states import FloatMatrix
from ubert_service.scoring.assembly import ScorerBatch
from ubert_service.scoring.runtime import OnnxGraph
from ubert_service.settings import Device


class PairParts(NamedTuple):
    """One pair's network output in stars, as the exact sum of ``identity_and_summary`` and all contributions.

    Contributions (Nu,) and (Ni,) are per token; attention (Nu, Ni) and (Ni, Nu) is the softmax of Eq. 12.
    """

    identity_and_summary: float
    user_contributions: FloatMatrix
    item_contributions: FloatMatrix
    user_attention: FloatMatrix
    item_attention: FloatMatrix


class OutputDecomposer(Protocol):
    """Decomposes network outputs. Thread-safe."""

    def decompose(self, batch: ScorerBatch) -> PairParts:
        """The parts for a batch of one pair. Raises ``DeviceUnavailableError`` if the device stops working."""


class OnnxExplainer:
    """An ``OutputDecomposer`` over the explainer graph. Raises as :class:`OnnxGraph` does."""

    def __init__(self, graph: Path, *, device: Device, threads: int) -> None:
        self._graph = OnnxGraph(graph, device=device, threads=threads)

    def decompose(self, batch: ScorerBatch) -> PairParts:
        identity, *by_token = self._graph.run_all(PairParts._fields, batch.graph_inputs())
        return PairParts(float(identity[0]), *(values[0] for values in by_token))
