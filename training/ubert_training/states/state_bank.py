"""The state bank: a cache of the encoder states of all reviews on disk, training's counterpart of the state store."""

import hashlib
import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ubert_model.running.atomic import write_text
from ubert_model.running.folder_lock import wait_for_lock
from ubert_model.states.pooling import pool_neighbours
from ubert_training.running.digests import fingerprint_of
from ubert_training.running.disk import translated_write_errors
from ubert_training.running.progress import progress_bar
from ubert_training.states.tokens import TOKENS_PER_BATCH, TokenizedReviews

if TYPE_CHECKING:  # transformers takes seconds, and precompute on a CPU encodes without it
    from ubert_model.nn.review_encoder import ReviewEncoder

BATCHES_PER_FLUSH = 16
FILLING = ".filling"
"""Subfolder of a directory of states that is locked while a bank is filled there."""
BANK_FILE = re.compile(r"states-[0-9a-f]{16}\.(f32|json)")


def encoder_digest(encoder: "ReviewEncoder", tokenizer_json: str, max_length: int, *, projected: bool) -> str:
    """Digest of all that determines a text's states: weights, architecture, tokenizer, length, pooling (law 6)."""
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
    """Unprojected, pooled states S^L of R reviews: a ragged array in one memory-mapped file.

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
    directory: Path, encoder: "ReviewEncoder", tokens: TokenizedReviews, digest: str, *, bfloat16: bool = False
) -> StateBank:
    """Encode all reviews into ``directory``, continuing where a killed run stopped.

    ``bfloat16``: with matrix products in bfloat16, for a model that is only measured; ``digest`` has to tell such a
    bank from one in fp32. A bank of another encoder or other reviews in the directory is removed first; a process that
    has it open can still read it. Processes that fill banks in one directory take turns. Raises ``OSError`` if the
    disk is full.
    """
    bank = matching_bank(directory, encoder, tokens, digest)
    if bank is not None:
        return bank
    files = _BankFiles.of(directory, encoder, tokens, digest)
    lock = directory / FILLING
    lock.mkdir(parents=True, exist_ok=True)
    waiting = progress_bar(f"waiting for another process that encodes reviews into {directory}", None)
    with wait_for_lock(lock, waiting):
        states = files.open_complete()  # the other process may have filled this very bank
        if states is None:
            states = _fill(files, encoder, tokens, bfloat16=bfloat16)
        return StateBank(states, files.starts)


def matching_bank(directory: Path, encoder: "ReviewEncoder", tokens: TokenizedReviews, digest: str) -> StateBank | None:
    """The bank in ``directory`` if it is complete and belongs to this encoder and these reviews, else None."""
    files = _BankFiles.of(directory, encoder, tokens, digest)
    states = files.open_complete()
    return None if states is None else StateBank(states, files.starts)


def encode_batch(
    encoder: "ReviewEncoder", tokens: TokenizedReviews, rows: NDArray[np.int64], *, bfloat16: bool = False
) -> list[NDArray[np.float32]]:
    """Pooled S^L of some reviews, without padding, each (rows, d), on the CPU. Computed on the encoder's device."""
    token_ids, mask = tokens.padded(rows)
    device = encoder.bert.device
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        states: Tensor = encoder.encode(token_ids.to(device), mask.to(device)).float().cpu()
    lengths = tokens.lengths[rows].tolist()
    return [
        pool_neighbours(states[index, :length].numpy(), encoder.tokens_a_row) for index, length in enumerate(lengths)
    ]


@dataclass(frozen=True, kw_only=True, eq=False)
class _BankFiles:
    """The two files of a bank: its states, and its progress (how many batches of them are written).

    Their names contain ``identity``, a digest of the encoder and the reviews, so that the files of another bank are
    never opened (law 6).

    Shape:
        starts: (R + 1,) int64.
    """

    directory: Path
    identity: str
    hidden_dim: int
    starts: NDArray[np.int64]
    batches: list[NDArray[np.int64]]

    @classmethod
    def of(cls, directory: Path, encoder: "ReviewEncoder", tokens: TokenizedReviews, digest: str) -> "_BankFiles":
        reviews = hashlib.sha256(tokens.ids.data)
        reviews.update(tokens.starts.data)
        inputs = {"encoder": digest, "reviews": reviews.hexdigest(), "dim": encoder.hidden_dim}
        return cls(
            directory=directory,
            identity=fingerprint_of("states", inputs),
            hidden_dim=encoder.hidden_dim,
            starts=tokens.row_starts(encoder.tokens_a_row),
            batches=list(tokens.length_buckets(np.flatnonzero(tokens.lengths), TOKENS_PER_BATCH)),
        )

    @property
    def states(self) -> Path:
        return self.directory / f"states-{self.identity}.f32"

    @property
    def progress(self) -> Path:
        return self.states.with_suffix(".json")

    @property
    def shape(self) -> tuple[int, int]:
        return max(1, int(self.starts[-1])), self.hidden_dim

    def open_complete(self) -> NDArray[np.float32] | None:
        """All states, (T, d), mapped read-only; None unless every batch is written.

        The states are opened before the progress is read, and removal begins with the progress. So a progress that is
        read belongs to the opened states.
        """
        if not self._has_full_size():
            return None
        try:
            states = np.memmap(self.states, dtype=np.float32, mode="r", shape=self.shape)
        except FileNotFoundError:  # removed meanwhile
            return None
        return states if self._recorded_batches() == len(self.batches) else None

    def batches_done(self) -> int:
        """How many batches an earlier run has written."""
        return self._recorded_batches() if self._has_full_size() else 0

    def record_progress(self, batches: int) -> None:
        """Record how many batches are on the disk."""
        write_text(self.progress, json.dumps({"batches": batches}) + "\n")

    def open_for_writing(self) -> np.memmap[Any, np.dtype[np.float32]]:
        """All states, (T, d), mapped for writing. Raises ``OSError`` if the disk has no room for them.

        The room is allocated first, because a process that writes to a mapping on a full disk is killed silently.
        """
        with translated_write_errors(self.states, OSError), self.states.open("ab") as file:
            if hasattr(os, "posix_fallocate"):  # missing on macOS
                os.posix_fallocate(file.fileno(), 0, self._size)
        return np.memmap(self.states, dtype=np.float32, mode="r+", shape=self.shape)

    def remove_unusable(self) -> None:
        """Remove the files of all other banks, and those of this one if it has no batch that can be used.

        Files are unlinked and never truncated, so that a process that has them mapped can still read them.
        """
        kept = {self.states.name, self.progress.name} if self.batches_done() else set()
        found = [path for path in self.directory.iterdir() if BANK_FILE.fullmatch(path.name) and path.name not in kept]
        for path in sorted(found, key=lambda path: path.suffix, reverse=True):  # .json before .f32
            path.unlink()

    @property
    def _size(self) -> int:
        """Bytes of the states."""
        return math.prod(self.shape) * np.dtype(np.float32).itemsize

    def _has_full_size(self) -> bool:
        try:
            return self.states.stat().st_size == self._size
        except FileNotFoundError:
            return False

    def _recorded_batches(self) -> int:
        try:
            return int(json.loads(self.progress.read_text(encoding="utf-8"))["batches"])
        except (FileNotFoundError, ValueError, LookupError, TypeError):  # missing or damaged: encode again
            return 0


def _fill(
    files: _BankFiles, encoder: "ReviewEncoder", tokens: TokenizedReviews, *, bfloat16: bool
) -> NDArray[np.float32]:
    """Encode the batches that are missing. To be called by one process at a time."""
    files.remove_unusable()
    done, starts = files.batches_done(), files.starts
    states = files.open_for_writing()
    with progress_bar("encoding reviews", len(tokens)) as advance:
        advance(len(tokens) - sum(len(rows) for rows in files.batches[done:]))
        for number, rows in enumerate(files.batches[done:], start=done + 1):
            encoded = encode_batch(encoder, tokens, rows, bfloat16=bfloat16)
            for row, review_states in zip(rows.tolist(), encoded, strict=True):
                states[starts[row] : starts[row + 1]] = review_states
            advance(len(rows))
            if number % BATCHES_PER_FLUSH == 0 or number == len(files.batches):
                states.flush()
                files.record_progress(number)
    return states
