"""Encoder states of all reviews, computed once: the training-side twin of the state store."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ubert_model.atomic import write_text
from ubert_model.nn.review_encoder import ReviewEncoder
from ubert_model.states.pooling import pool_neighbours
from ubert_training.progress import progress_bar
from ubert_training.tokens import TokenizedReviews

TOKENS_PER_BATCH = 4096
BATCHES_PER_FLUSH = 16
PROGRESS = "progress.json"
STATES = "states.f32"


def encoder_digest(encoder: ReviewEncoder, tokenizer_json: str, max_length: int, *, projected: bool) -> str:
    """Digest of all that determines a review's states: weights, architecture, tokenizer, length, pooling (law 6)."""
    form = f"{max_length}/{encoder.tokens_a_row}/{encoder.dim if projected else 'unprojected'}/"
    digest = hashlib.sha256(form.encode())
    digest.update(encoder.bert.config.to_json_string().encode())
    digest.update(tokenizer_json.encode())
    module = encoder if projected else encoder.bert
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class StateBank:
    """Unprojected states S^L of R reviews, pooled, end to end in one file, memory-mapped: each owns a stretch of rows.

    Shape:
        states: (T, d) float32; starts: (R + 1,) int64.
    """

    def __init__(self, states: NDArray[np.float32], starts: NDArray[np.int64]) -> None:
        self.states = states
        self.starts = starts

    def review(self, row: int) -> NDArray[np.float32]:
        """One review, (rows, d)."""
        return self.states[self.starts[row] : self.starts[row + 1]]


def fill_bank(
    directory: Path, encoder: ReviewEncoder, tokens: TokenizedReviews, digest: str, device: torch.device
) -> StateBank:
    """Encode all reviews into ``directory``; killed and started again it continues.

    A bank of another encoder or of other reviews that lies there is replaced.
    """
    directory.mkdir(parents=True, exist_ok=True)
    identity = _identity(encoder, tokens, digest)
    progress_path, states_path = directory / PROGRESS, directory / STATES
    done = _batches_done(progress_path, identity) if states_path.is_file() else 0
    starts = tokens.row_starts(encoder.tokens_a_row)
    shape = (max(1, int(starts[-1])), encoder.hidden_dim)
    states = np.memmap(states_path, dtype=np.float32, mode="r+" if done else "w+", shape=shape)
    batches = _bank_batches(tokens)
    with progress_bar("encoding reviews", len(tokens)) as advance:
        advance(len(tokens) - sum(len(rows) for rows in batches[done:]))
        for number, rows in enumerate(batches[done:], start=done + 1):
            for row, review_states in zip(rows.tolist(), encode_batch(encoder, tokens, rows, device), strict=True):
                states[starts[row] : starts[row + 1]] = review_states
            advance(len(rows))
            if number % BATCHES_PER_FLUSH == 0 or number == len(batches):
                states.flush()
                write_text(progress_path, json.dumps({**identity, "batches": number}))
    return StateBank(states, starts)


def matching_bank(directory: Path, encoder: ReviewEncoder, tokens: TokenizedReviews, digest: str) -> StateBank | None:
    """The bank in ``directory`` if it is complete and of this very encoder and these reviews, else None."""
    done = _batches_done(directory / PROGRESS, _identity(encoder, tokens, digest))
    if done < len(_bank_batches(tokens)) or not (directory / STATES).is_file():
        return None
    starts = tokens.row_starts(encoder.tokens_a_row)
    shape = (max(1, int(starts[-1])), encoder.hidden_dim)
    return StateBank(np.memmap(directory / STATES, dtype=np.float32, mode="r", shape=shape), starts)


def encode_batch(
    encoder: ReviewEncoder, tokens: TokenizedReviews, rows: NDArray[np.int64], device: torch.device
) -> list[NDArray[np.float32]]:
    """S^L of some reviews, padding cut off and pooled, each (rows, d)."""
    token_ids, mask = tokens.padded(rows)
    with torch.inference_mode():
        states: Tensor = encoder.encode(token_ids.to(device), mask.to(device)).float().cpu()
    lengths = tokens.lengths[rows].tolist()
    return [
        pool_neighbours(states[index, :length].numpy(), encoder.tokens_a_row) for index, length in enumerate(lengths)
    ]


def sample_with_text(
    tokens: TokenizedReviews, rows: NDArray[np.int64], count: int, seed: int
) -> list[NDArray[np.int64]]:
    """At most ``count`` of the reviews at ``rows`` that have text, drawn at random, in batches of like length."""
    with_text = rows[tokens.lengths[rows] > 0]
    chosen = with_text[np.random.default_rng(seed).permutation(len(with_text))[:count]]
    return list(tokens.length_buckets(chosen, TOKENS_PER_BATCH))


def unprojected_batch(
    encoder: ReviewEncoder,
    tokens: TokenizedReviews,
    rows: NDArray[np.int64],
    bank: StateBank | None,
    device: torch.device,
) -> list[NDArray[np.float32]]:
    """S^L of some reviews, pooled, each (rows, d): from the bank, else encoded."""
    if bank is None:
        return encode_batch(encoder, tokens, rows, device)
    return [np.ascontiguousarray(bank.review(row)) for row in rows.tolist()]


def projected_batch(
    encoder: ReviewEncoder,
    tokens: TokenizedReviews,
    rows: NDArray[np.int64],
    bank: StateBank | None,
    device: torch.device,
) -> list[NDArray[np.float32]]:
    """States of some reviews as a store keeps them before its codec, each (rows, D): from the bank, else encoded."""
    unprojected = unprojected_batch(encoder, tokens, rows, bank, device)
    with torch.inference_mode():
        flat = torch.from_numpy(np.concatenate(unprojected)).to(device)  # (T, d)
        projected = encoder.project(flat).cpu().numpy()  # (T, D)
    return np.split(projected, np.cumsum([len(matrix) for matrix in unprojected])[:-1])


def _bank_batches(tokens: TokenizedReviews) -> list[NDArray[np.int64]]:
    return list(tokens.length_buckets(np.flatnonzero(tokens.lengths), TOKENS_PER_BATCH))


def _identity(encoder: ReviewEncoder, tokens: TokenizedReviews, digest: str) -> dict[str, object]:
    reviews = hashlib.sha256(tokens.ids.tobytes() + tokens.starts.tobytes()).hexdigest()
    return {"encoder": digest, "reviews": reviews, "dim": encoder.hidden_dim}


def _batches_done(path: Path, identity: dict[str, object]) -> int:
    """How many batches a former run finished on the same reviews and encoder."""
    if not path.is_file():
        return 0
    found = json.loads(path.read_text(encoding="utf-8"))
    batches = found.pop("batches", 0)
    return int(batches) if found == identity else 0
