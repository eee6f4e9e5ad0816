"""Precompute: every review encoded once, its states and its lines in both review lists written to the store.

Three steps run at the same time, each a few batches ahead of the next: tokenize, encode, and (here) pack and write.
"""

import hashlib
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ubert_model.bundle import Bundle
from ubert_model.ids import Identities
from ubert_model.running.sharding import Shard
from ubert_model.states import (
    FinishedShard,
    FloatMatrix,
    Namespace,
    NamespaceHolder,
    Side,
    StateCodec,
    StateStore,
    numpy_in_one_thread,
)
from ubert_model.tokenizer import ReviewTokenizer
from ubert_training.reviews.table import ReviewTable
from ubert_training.running.devices import DeviceChoice
from ubert_training.running.progress import throughput_bar
from ubert_training.states.review_encoders import BankedStates, BatchEncoder, choose_encoder
from ubert_training.states.running_ahead import running_ahead
from ubert_training.states.state_estimate import StateEstimate, estimate_states
from ubert_training.states.token_batches import TokenBatch, token_batches

LOOKUP = 5000
"""Reviews asked of the store at a time, when looking for what is missing."""
BATCHES_AHEAD = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class PrecomputeWork:
    """What one share of the reviews still needs.

    Shape: rows (of the share's, those that belong in the store), missing (those of them that the store lacks), removed
    (those that were taken out of it since, and stay out): row numbers of the table.
    """

    corpus: str
    shard: Shard
    rows: NDArray[np.int64]
    missing: NDArray[np.int64]
    removed: NDArray[np.int64]
    estimate: StateEstimate


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written: ``tokens`` without padding, ``bytes`` of encoded states, ``texts`` that were kept beside."""

    reviews: int = 0
    tokens: int = 0
    bytes: int = 0
    texts: int = 0

    def __add__(self, other: "Written") -> "Written":
        return Written(
            reviews=self.reviews + other.reviews,
            tokens=self.tokens + other.tokens,
            bytes=self.bytes + other.bytes,
            texts=self.texts + other.texts,
        )


@dataclass(frozen=True, kw_only=True)
class PrecomputeReport:
    """What a run found and wrote. ``bytes`` counts encoded states, as written by this run; ``removed`` reviews of the
    share were taken out of the store since, and not written again.
    """

    reviews: int
    removed: int
    already_there: int
    written: int
    tokens: int
    bytes: int
    texts: int
    seconds: float
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
    """Write what the store lacks of the reviews at ``rows``; killed and started again it writes the rest. What somebody
    has removed since stays out (:func:`find_work`).

    ``states`` may name the cached states of a fine-tuning run; where they were made by the same encoder from the
    same reviews, they are projected instead of encoded again.
    """
    written_as = bundle.codec(codec)
    work = find_work(table, rows, bundle, store, written_as)
    texts = table.texts_at(rows_served(bundle.identities, table))
    encoder = BankedStates.find(states, bundle, texts) if states is not None else None
    return write_missing(table, work, bundle, store, written_as, encoder or choose_encoder(bundle, device, "fp32", 0))


def find_work(
    table: ReviewTable,
    rows: NDArray[np.int64],
    bundle: Bundle,
    store: StateStore,
    codec: StateCodec,
    *,
    shard: Shard | None = None,
    restore: bool = False,
) -> PrecomputeWork:
    """Ask the store what it lacks of the share ``shard`` (None: all) of the reviews at ``rows``; writes nothing.

    A review of which the store has no trace, though the share was once written whole, has been removed by somebody, and
    is not to come back by itself; ``restore``: it is.
    """
    shard, corpus, version = shard or Shard(), _corpus(table, rows), codec.namespace.version
    mine = rows_of_shard(shard, table, rows)
    missing = _missing(table, mine, store, version)
    whole_before = not restore and _was_finished(shard, corpus, store.finished_shards(version))
    removed = _without_trace(table, missing, store, version) if whole_before else missing[:0]
    missing = missing[~np.isin(missing, removed)]
    return PrecomputeWork(
        corpus=corpus,
        shard=shard,
        rows=mine[~np.isin(mine, removed)],
        missing=missing,
        removed=removed,
        estimate=estimate_states(
            table.text, missing.tolist(), bundle.tokenizer(), codec, bundle.manifest.config.tokens_a_row
        ),
    )


def rows_served(identities: Identities, table: ReviewTable) -> NDArray[np.int64]:
    """Rows of the reviews that the bundle's pairs may read: all but those of domains that it knows and predicts
    nothing in, whose ratings pre-training has already left in it.
    """
    foreign = set(identities.domains.identifiers) - set(identities.item_domains.values())
    return np.flatnonzero([domain not in foreign for domain in table.domain])


def rows_of_shard(shard: Shard, table: ReviewTable, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of ``rows`` whose reviews, by their identifiers, which are digests of them, fall into the share."""
    if shard.shards == 1:
        return rows
    held = [shard.holds(int(table.review_id[row], 16)) for row in rows.tolist()]
    mine: NDArray[np.int64] = rows[np.array(held, dtype=bool)]
    return mine


def write_missing(
    table: ReviewTable,
    work: PrecomputeWork,
    bundle: Bundle,
    store: StateStore,
    codec: StateCodec,
    encoder: BatchEncoder,
) -> PrecomputeReport:
    """Encode and write what is missing, here, then keep in the store that the share is done.

    Raises as :func:`written_batches` does.
    """
    written = written_batches(table, work.missing, bundle.tokenizer(), store, codec, encoder)
    return follow(work, store, codec.namespace, written)


def written_batches(
    table: ReviewTable,
    rows: NDArray[np.int64],
    tokenizer: ReviewTokenizer,
    store: StateStore,
    codec: StateCodec,
    encoder: BatchEncoder,
) -> Generator[Written]:
    """Encode and write the reviews at ``rows``, batch by batch.

    Killed at any point, nothing that was written is lost or half there: a list names a review only once its state
    is stored. An exception of any step ends the others and is raised here.
    """
    batches = running_ahead(token_batches(table.text, rows, tokenizer), BATCHES_AHEAD)
    with numpy_in_one_thread(), closing(running_ahead(_encoded(batches, encoder), BATCHES_AHEAD)) as encoded:
        for batch, states in encoded:
            yield _write(table, batch, states, store, codec)


def follow(
    work: PrecomputeWork, store: StateStore, namespace: Namespace, written: Generator[Written]
) -> PrecomputeReport:
    """Let ``written`` write what is missing, showing how far it is, then keep in the store that the share is done.
    Meanwhile nobody can drop the namespace unawares.
    """
    store.open_namespace(namespace)
    started = time.perf_counter()
    total = Written()
    with (
        NamespaceHolder(store, [namespace.version]),
        throughput_bar(f"precompute {work.shard}", len(work.rows)) as advance,
        closing(written),
    ):
        advance(len(work.rows) - len(work.missing), 0)
        for part in written:
            total += part
            advance(part.reviews, part.tokens)
    shard = work.shard
    store.finish_shard(
        namespace.version,
        FinishedShard(
            corpus=work.corpus,
            shards=shard.shards,
            number=shard.number,
            reviews=len(work.rows) + len(work.removed),
        ),
    )
    return PrecomputeReport(
        reviews=len(work.rows),
        removed=len(work.removed),
        already_there=len(work.rows) - len(work.missing),
        written=total.reviews,
        tokens=total.tokens,
        bytes=total.bytes,
        texts=total.texts,
        seconds=time.perf_counter() - started,
        version=namespace.version,
    )


def _encoded(batches: Iterator[TokenBatch], encoder: BatchEncoder) -> Iterator[tuple[TokenBatch, list[FloatMatrix]]]:
    for batch in batches:
        yield batch, encoder.states(batch)


def _write(
    table: ReviewTable, batch: TokenBatch, states: Sequence[FloatMatrix], store: StateStore, codec: StateCodec
) -> Written:
    """Store one batch."""
    entries = [table.entry(row, len(matrix)) for row, matrix in zip(batch.rows.tolist(), states, strict=True)]
    payloads = [codec.encode(matrix) for matrix in states]
    store.put(codec.namespace.version, list(zip(entries, payloads, strict=True)))
    return Written(reviews=len(entries), tokens=batch.tokens, bytes=sum(map(len, payloads)))


def _missing(table: ReviewTable, rows: NDArray[np.int64], store: StateStore, version: str) -> NDArray[np.int64]:
    found: list[bool] = []
    for start in range(0, len(rows), LOOKUP):
        # How many tokens a review has is not part of where it lies.
        entries = [table.entry(row, 0) for row in rows[start : start + LOOKUP].tolist()]
        found += store.missing(version, entries)
    missing: NDArray[np.int64] = rows[np.array(found, dtype=bool)]
    return missing


def _was_finished(shard: Shard, corpus: str, finished: Sequence[FinishedShard]) -> bool:
    """Was this share of the corpus written whole, by itself or with all others of a division?"""
    of_corpus = {(one.shards, one.number) for one in finished if one.corpus == corpus}
    divisions = {shards for shards, _ in of_corpus}
    return (shard.shards, shard.number) in of_corpus or any(
        all((shards, number) in of_corpus for number in range(1, shards + 1)) for shards in divisions
    )


def _without_trace(table: ReviewTable, rows: NDArray[np.int64], store: StateStore, version: str) -> NDArray[np.int64]:
    """Rows of the reviews that have neither a state nor a line in a list: what is lost leaves one of them behind."""
    gone: list[bool] = []
    for start in range(0, len(rows), LOOKUP):
        entries = [table.entry(row, 0) for row in rows[start : start + LOOKUP].tolist()]
        users, items = ({side.entity(entry) for entry in entries} for side in Side)
        lists = chain(*store.review_lists(version, users=sorted(users), items=sorted(items)))
        listed = {line.review_id for reviews in lists for line in reviews}
        states = store.states(version, [entry.review_id for entry in entries])
        gone += [state is None and entry.review_id not in listed for entry, state in zip(entries, states, strict=True)]
    without: NDArray[np.int64] = rows[np.array(gone, dtype=bool)]
    return without


def _corpus(table: ReviewTable, rows: NDArray[np.int64]) -> str:
    """16 hexadecimal characters that name the reviews at ``rows``, the same on every machine."""
    digest = hashlib.blake2b(digest_size=8)
    for row in rows.tolist():
        digest.update(table.review_id[row].encode())
    return digest.hexdigest()
