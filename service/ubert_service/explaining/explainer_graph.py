"""The graph that takes a pair's network output apart; what it makes of one pair."""

from pathlib import Path
from typing import NamedTuple, Protocol

from ubert_model.states import FloatMatrix
from ubert_service.scoring.assembly import ScorerBatch
from ubert_service.scoring.runtime import OnnxGraph
from ubert_service.settings import Device


class PairParts(NamedTuple):
    """What one pair's network output is made of, in stars: its three parts add up to it exactly.

    Contributions (Nu,) and (Ni,) are by token; attention (Nu, Ni) and (Ni, Nu) is the softmax of Eq. 12.
    """

    identity_and_summary: float
    user_contributions: FloatMatrix
    item_contributions: FloatMatrix
    user_attention: FloatMatrix
    item_attention: FloatMatrix


class OutputParting(Protocol):
    """Takes network outputs apart. Thread-safe."""

    def part(self, batch: ScorerBatch) -> PairParts:
        """The parts of the only pair of a batch. Raises ``DeviceUnavailableError`` if the device stops working."""


class OnnxExplainer:
    """An ``OutputParting`` over the explainer graph. Raises as :class:`OnnxGraph` does."""

    def __init__(self, graph: Path, *, device: Device, threads: int) -> None:
        self._graph = OnnxGraph(graph, device=device, threads=threads)

    def part(self, batch: ScorerBatch) -> PairParts:
        identity, *by_token = self._graph.run_all(PairParts._fields, batch.graph_inputs())
        return PairParts(float(identity[0]), *(values[0] for values in by_token))
