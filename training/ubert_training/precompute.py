"""Precompute: every review encoded once, its states and its lines in both review lists written to the store."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file
from transformers import BertConfig

from ubert_model.bundle import ENCODER_CONFIG, WEIGHTS, Bundle
from ubert_model.nn.review_encoder import ReviewEncoder
from ubert_model.states import StateStore
from ubert_model.states.review import ReviewEntry
from ubert_training.devices import DeviceChoice, make_accelerator
from ubert_training.histories import review_entry
from ubert_training.model_files import weights_below
from ubert_training.progress import progress_bar
from ubert_training.reviews.table import ReviewTable
from ubert_training.state_bank import encoder_digest, matching_bank, projected_batch
from ubert_training.tokens import TokenizedReviews

TOKENS_PER_BATCH = 4096
LOOKUP = 5000
"""Reviews asked of the store at a time, when looking for what is missing."""


@dataclass(frozen=True, kw_only=True)
class PrecomputeReport:
    """What a run found and wrote. ``bytes`` counts encoded states, as written by this run."""

    reviews: int
    already_there: int
    written: int
    tokens: int
    bytes: int
    version: str


def precompute(
    table: ReviewTable,
    rows: NDArray[np.int64],
    bundle: Bundle,
    store: StateStore,
    *,
    codec: str,
    device: DeviceChoice = "auto",
    states: Path | None = None,
) -> PrecomputeReport:
    """Write what the store lacks of the reviews at ``rows``; killed and started again it writes the rest.

    ``states`` may name the cached states of a fine-tuning run; where they were made by the same encoder from the
    same reviews, they are projected instead of encoded again.
    """
    written_as = bundle.codec(codec)
    namespace = written_as.namespace
    store.open_namespace(namespace)
    tokenizer = bundle.tokenizer()
    tokens = TokenizedReviews.of(table.text, tokenizer)
    encoder = load_encoder(bundle)
    missing = _missing(table, rows, tokens, store, namespace.version)
    bank = None
    if states is not None:
        digest = encoder_digest(encoder, tokenizer.serialized, tokenizer.max_length, projected=False)
        bank = matching_bank(states, encoder, tokens, digest)
    accelerator = make_accelerator(device)
    encoder.to(accelerator.device)
    written_bytes = 0
    with progress_bar(f"precompute, {len(missing):,} reviews left", len(rows)) as advance:
        advance(len(rows) - len(missing))
        for batch in tokens.length_buckets(missing, TOKENS_PER_BATCH):
            values = projected_batch(encoder, tokens, batch, bank, accelerator.device)
            writes = [
                (_entry(table, row, tokens), written_as.encode(matrix))
                for row, matrix in zip(batch.tolist(), values, strict=True)
            ]
            store.put(namespace.version, writes)
            written_bytes += sum(len(payload) for _, payload in writes)
            advance(len(batch))
    return PrecomputeReport(
        reviews=len(rows),
        already_there=len(rows) - len(missing),
        written=len(missing),
        tokens=int(tokens.lengths[missing].sum()),
        bytes=written_bytes,
        version=namespace.version,
    )


def load_encoder(bundle: Bundle) -> ReviewEncoder:
    """The bundle's review encoder in torch, in evaluation mode."""
    config = BertConfig.from_json_file(str(bundle.file(ENCODER_CONFIG)))
    encoder = ReviewEncoder.from_config(config, bundle.manifest.config.state_dim)
    encoder.load_state_dict(weights_below(load_file(bundle.file(WEIGHTS)), "review_encoder"))
    return encoder.eval()


def _missing(
    table: ReviewTable, rows: NDArray[np.int64], tokens: TokenizedReviews, store: StateStore, version: str
) -> NDArray[np.int64]:
    found = [
        flag
        for batch in _batches(rows)
        for flag in store.missing(version, [_entry(table, row, tokens) for row in batch])
    ]
    missing: NDArray[np.int64] = rows[np.array(found, dtype=bool)]
    return missing


def _batches(rows: NDArray[np.int64]) -> Iterator[Sequence[int]]:
    for start in range(0, len(rows), LOOKUP):
        yield rows[start : start + LOOKUP].tolist()


def _entry(table: ReviewTable, row: int, tokens: TokenizedReviews) -> ReviewEntry:
    return review_entry(table, row, int(tokens.lengths[row]))
