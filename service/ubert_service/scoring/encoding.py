"""Encodes the text of one review into the states that the store keeps."""

from pathlib import Path
from typing import Protocol

import numpy as np

from ubert_model.errors import BundleError
from ubert_model.states import FloatMatrix
from ubert_model.states.pooling import pool_neighbours
from ubert_model.tokenizer import ReviewTokenizer
from ubert_service.scoring.runtime import OnnxGraph
from ubert_service.settings import Device


class ReviewEncoding(Protocol):
    """Encodes reviews. Thread-safe."""

    def encode(self, text: str) -> FloatMatrix:
        """The states of one review, (rows, D); a text without words has none, (0, D).

        Raises ``DeviceUnavailableError`` if the device stops working.
        """


class OnnxReviewEncoder:
    """The bundle's tokenizer and its encoder graph in an ONNX Runtime session.

    The session opens with the service, not with the first review, so that an encoder that cannot run keeps the service
    from starting. Raises ``DeviceUnavailableError`` and ``BundleError`` as :class:`OnnxGraph` does.
    """

    def __init__(
        self,
        graph: Path,
        tokenizer: ReviewTokenizer,
        *,
        state_dim: int,
        tokens_a_row: int,
        device: Device,
        threads: int,
    ) -> None:
        self._graph = OnnxGraph(graph, device=device, threads=threads)
        self._tokenizer = tokenizer
        self._state_dim = state_dim
        self._tokens_a_row = tokens_a_row

    def encode(self, text: str) -> FloatMatrix:
        (token_ids,) = self._tokenizer.encode([text])
        if not token_ids:
            return np.zeros((0, self._state_dim), dtype=np.float32)
        inputs = {
            "token_ids": np.array([token_ids], dtype=np.int64),  # (1, L)
            "token_mask": np.ones((1, len(token_ids)), dtype=np.bool_),
        }
        states: FloatMatrix = self._graph.run("states", inputs)[0]
        if states.shape != (len(token_ids), self._state_dim):
            raise BundleError(
                f"the encoder made states of shape {states.shape} from {len(token_ids)} tokens, the bundle declares "
                f"dimension {self._state_dim}; export the bundle again"
            )
        return pool_neighbours(states, self._tokens_a_row)
