"""Encoders from a batch of tokens to the states in the store; which one is fastest depends on the device."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import onnxruntime
import torch
from safetensors.torch import load_file

from ubert_model.bundle import ENCODER_CONFIG, ENCODER_GRAPH, WEIGHTS, Bundle
from ubert_model.states import FloatMatrix
from ubert_model.states.pooling import pool_neighbours
from ubert_training.running.devices import DeviceChoice, Precision, make_accelerator, uses_bfloat16
from ubert_training.states.state_bank import StateBank, encoder_digest, matching_bank
from ubert_training.states.token_batches import TokenBatch
from ubert_training.states.tokens import TokenizedReviews
from ubert_training.weights.saving import submodule_weights

if TYPE_CHECKING:
    from ubert_model.nn.review_encoder import ReviewEncoder


class BatchEncoder(Protocol):
    """Encodes batches of reviews."""

    def states(self, batch: TokenBatch) -> list[FloatMatrix]:
        """The states of each review, (rows, D), without padding; (0, D) for a review without tokens."""


def choose_encoder(bundle: Bundle, device: DeviceChoice, precision: Precision, threads: int) -> BatchEncoder:
    """Choose the encoder: in fp32 on a CPU the ONNX graph that the service uses, otherwise torch.

    ``threads``: CPU threads per batch; 0: as many as the runtime finds cores. Raises ``DeviceUnavailableError`` for a
    GPU that is missing, and ``ConfigError`` for a precision that the device does not support.
    """
    target = make_accelerator(device).device
    bfloat16 = precision != "fp32" and uses_bfloat16(precision, target)
    if target.type == "cpu" and not bfloat16:
        return OnnxEncoder.of(bundle, threads)
    if threads:
        torch.set_num_threads(threads)
    return TorchEncoder(load_encoder(bundle), target, bfloat16=bfloat16)


def cpu_session(graph: Path, threads: int) -> onnxruntime.InferenceSession:
    """Open a bundle's graph on the CPU; ``threads`` 0: as many as ONNX Runtime finds cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


class OnnxEncoder:
    """A bundle's encoder graph on the CPU."""

    def __init__(self, graph: Path, *, state_dim: int, tokens_a_row: int, threads: int) -> None:
        self._session = cpu_session(graph, threads)
        self._state_dim = state_dim
        self._tokens_a_row = tokens_a_row

    @classmethod
    def of(cls, bundle: Bundle, threads: int) -> "OnnxEncoder":
        manifest = bundle.manifest
        return cls(
            bundle.file(ENCODER_GRAPH),
            state_dim=manifest.state_dim,
            tokens_a_row=manifest.config.tokens_a_row,
            threads=threads,
        )

    def states(self, batch: TokenBatch) -> list[FloatMatrix]:
        if not batch.token_ids.numel():
            return _without_tokens(batch, self._state_dim)
        inputs = {"token_ids": batch.token_ids.numpy(), "token_mask": batch.mask.numpy()}
        (states,) = self._session.run(["states"], inputs)
        return _rows(states, batch, self._tokens_a_row)


class TorchEncoder:
    """The bundle's encoder in torch, on any device, in fp32 or with matrix products in bfloat16."""

    def __init__(self, encoder: "ReviewEncoder", device: torch.device, *, bfloat16: bool) -> None:
        self._encoder = encoder.to(device)
        self._device = device
        self._autocast = torch.autocast(device.type, torch.bfloat16, enabled=bfloat16)

    def states(self, batch: TokenBatch) -> list[FloatMatrix]:
        if not batch.token_ids.numel():
            return _without_tokens(batch, self._encoder.dim)
        with torch.inference_mode(), self._autocast:
            states = self._encoder(batch.token_ids.to(self._device), batch.mask.to(self._device))
        return _rows(states.float().cpu().numpy(), batch, self._encoder.tokens_a_row)


class BankEncoder:
    """Projects the states that fine-tuning has cached, instead of encoding the reviews again."""

    def __init__(self, bank: StateBank, encoder: "ReviewEncoder") -> None:
        self._bank = bank
        self._encoder = encoder

    @classmethod
    def find(cls, directory: Path, bundle: Bundle, texts: Sequence[str]) -> "BankEncoder | None":
        """The cached states in ``directory``, if the bundle's encoder made them of these very reviews, else None."""
        encoder, tokenizer = load_encoder(bundle), bundle.tokenizer()
        digest = encoder_digest(encoder, tokenizer.serialized, tokenizer.max_length, projected=False)
        bank = matching_bank(directory, encoder, TokenizedReviews.of(texts, tokenizer), digest)
        return None if bank is None else cls(bank, encoder)

    def states(self, batch: TokenBatch) -> list[FloatMatrix]:
        reviews = [self._bank.review(row) for row in batch.rows.tolist()]
        with torch.inference_mode():
            projected = self._encoder.project(torch.from_numpy(np.concatenate(reviews))).numpy()  # (T, D)
        return np.split(projected, np.cumsum([len(rows) for rows in reviews])[:-1])


def load_encoder(bundle: Bundle) -> "ReviewEncoder":
    """The bundle's review encoder in torch, in evaluation mode."""
    # Imported here because it takes seconds, and precompute on a CPU does not need it: it uses ONNX Runtime.
    from transformers import BertConfig  # noqa: PLC0415

    from ubert_model.nn.review_encoder import ReviewEncoder  # noqa: PLC0415

    config = BertConfig.from_json_file(str(bundle.file(ENCODER_CONFIG)))
    model = bundle.manifest.config
    encoder = ReviewEncoder.from_config(config, model.state_dim, model.tokens_a_row)
    encoder.load_state_dict(submodule_weights(load_file(bundle.file(WEIGHTS)), "review_encoder"))
    return encoder.eval()


def _rows(states: FloatMatrix, batch: TokenBatch, tokens_a_row: int) -> list[FloatMatrix]:
    """Cut off padding and pool: (R, L, D) → R matrices (rows, D)."""
    return [
        pool_neighbours(matrix[:length], tokens_a_row)
        for matrix, length in zip(states, batch.lengths.tolist(), strict=True)
    ]


def _without_tokens(batch: TokenBatch, state_dim: int) -> list[FloatMatrix]:
    return [np.zeros((0, state_dim), dtype=np.float32) for _ in batch.rows]
