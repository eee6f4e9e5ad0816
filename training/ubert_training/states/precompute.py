"""Precompute: encode every review once, and write its states and its entries in both review lists to the store.

Three steps run concurrently, each a few batches ahead of the next: tokenize, encode, and (in this thread) write.
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
from ubert_model.rating.text_reader import TextReader
from ubert_model.review import ReviewEntry, Side
from ubert_model.running.sharding import Shard
from ubert_model.states import (
    FinishedShard,
    FloatMatrix,
    MaintenanceStore,
    Namespace,
    NamespaceLeases,
    StateCodec,
    numpy_in_one_thread,
)
from ubert_training.reviews.table import ReviewTable
from ubert_training.running.progress import throughput_bar
from ubert_training.states.prefetch import prefetch
from ubert_training.states.review_encoders import BankEncoder, BatchEncoder, choose_encoder
from ubert_training.states.state_estimate import StateEstimate, estimate_states
from ubert_training.states.token_batches import TokenBatch, token_batches

REVIEWS_PER_LOOKUP = 5000
"""Reviews per request to the store, when looking for missing ones."""
BATCHES_AHEAD = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class PrecomputeWork:
    """The work that is left in one shard of the reviews.

    ``rows`` are the reviews of the shard that belong in the store, ``missing`` those of them that it lacks. ``removed``
    are reviews of the shard that were removed from the store and stay out. All are row numbers of the table.
    ``recorded``: nothing is missing, and the store has on record that the shard is finished.
    """

    corpus: str
    shard: Shard
    rows: NDArray[np.int64]
    missing: NDArray[np.int64]
    removed: NDArray[np.int64]
    recorded: bool
    estimate: StateEstimate


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written: ``tokens`` without padding, ``bytes`` of encoded states, ``texts`` for explanations."""

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
    """What a run found and wrote. ``removed`` reviews of the shard had been removed from the store, and stay out."""

    reviews: int
    removed: int
    already_there: int
    written: Written
    seconds: float
    version: str


def precompute(
    table: ReviewTable,
    rows: NDArray[np.int64],
    bundle: Bundle,
    store: MaintenanceStore,
    *,
    codec: str,
    states: Path | None = None,
) -> PrecomputeReport:
    """Write the reviews at ``rows`` that the store lacks; if killed, run it again to write the rest.

    Reviews that were removed from the store stay out (see :func:`find_work`). ``states`` may name the cached states of
    a fine-tuning run. If the same encoder made them of the same reviews, they are projected instead of encoded again.
    """
    state_codec = bundle.codec(codec)
    work = find_work(table, rows, bundle, store, state_codec)
    texts = table.texts_at(rows_served(bundle.identities, table))
    encoder = BankEncoder.find(states, bundle, texts) if states is not None else None
    return write_missing(table, work, bundle, store, state_codec, encoder or choose_encoder(bundle, "auto", "fp32", 0))


def find_work(
    table: ReviewTable,
    rows: NDArray[np.int64],
    bundle: Bundle,
    store: MaintenanceStore | None,
    codec: StateCodec,
    *,
    shard: Shard | None = None,
    restore: bool = False,
) -> PrecomputeWork:
    """Find the reviews at ``rows``, in ``shard`` (None: all of them), that the store (None: an empty one) lacks. Writes
    nothing.

    If the shard was finished before, a review that left no trace in the store has been removed on purpose, and stays
    out unless ``restore`` is True.
    """
    shard, corpus, version = shard or Shard(), _corpus_digest(table, rows), codec.namespace.version
    in_shard = rows_of_shard(shard, table, rows)
    missing, removed, finished = in_shard, in_shard[:0], False
    if store is not None:
        missing = _missing(table, in_shard, store, version)
        finished = not restore and _was_finished(shard, corpus, store.finished_shards(version))
        if finished:
            removed = _without_trace(table, missing, store, version)
        missing = missing[~np.isin(missing, removed)]
    return PrecomputeWork(
        corpus=corpus,
        shard=shard,
        rows=in_shard[~np.isin(in_shard, removed)],
        missing=missing,
        removed=removed,
        recorded=finished and not len(missing),
        estimate=estimate_states(
            table.text, missing.tolist(), bundle.tokenizer(), codec, bundle.manifest.config.tokens_a_row
        ),
    )


def rows_served(identities: Identities, table: ReviewTable) -> NDArray[np.int64]:
    """Rows of the reviews that the bundle's pairs may read.

    Left out are domains that the bundle knows but does not predict in: it already holds their ratings by pre-training.
    """
    not_served = set(identities.domains.identifiers) - set(identities.item_domains.values())
    return np.flatnonzero([domain not in not_served for domain in table.domain])


def rows_of_shard(shard: Shard, table: ReviewTable, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The ``rows`` whose reviews belong to the shard, by their identifiers, which are digests."""
    if shard.shards == 1:
        return rows
    in_shard = [shard.holds(int(table.review_id[row], 16)) for row in rows.tolist()]
    chosen: NDArray[np.int64] = rows[np.array(in_shard, dtype=bool)]
    return chosen


def write_missing(
    table: ReviewTable,
    work: PrecomputeWork,
    bundle: Bundle,
    store: MaintenanceStore,
    codec: StateCodec,
    encoder: BatchEncoder,
) -> PrecomputeReport:
    """Encode and write the missing reviews in this process, then record in the store that the shard is finished.

    Raises as :func:`written_batches` does.
    """
    written = written_batches(table, work.missing, bundle, store, codec, encoder)
    return complete_shard(work, store, codec.namespace, written)


def written_batches(
    table: ReviewTable,
    rows: NDArray[np.int64],
    bundle: Bundle,
    store: MaintenanceStore,
    codec: StateCodec,
    encoder: BatchEncoder,
) -> Generator[Written]:
    """Encode and write the reviews at ``rows``, batch by batch.

    A kill at any point leaves the store consistent and loses nothing that was written, because a list names a review
    only once its state is stored. An exception in any step stops the others and is raised here.
    """
    batches = prefetch(token_batches(table.text, rows, bundle.tokenizer()), BATCHES_AHEAD)
    with numpy_in_one_thread(), closing(prefetch(_encoded(batches, encoder), BATCHES_AHEAD)) as encoded:
        for batch, states in encoded:
            yield _write(_entries(table, batch, states, bundle.text_reader), batch.tokens, states, store, codec)


def complete_shard(
    work: PrecomputeWork, store: MaintenanceStore, namespace: Namespace, written: Generator[Written]
) -> PrecomputeReport:
    """Run ``written`` to its end with a progress bar, then record in the store that the shard is finished, unless it is
    on record and nothing was missing: a full store refuses even that.

    Holds the namespace meanwhile, so that `ubert states drop` refuses to remove it.
    """
    store.open_namespace(namespace)
    started = time.perf_counter()
    total = Written()
    with (
        NamespaceLeases(store, [namespace.version]),
        throughput_bar(f"precompute {work.shard}", len(work.rows)) as advance,
        closing(written),
    ):
        advance(len(work.rows) - len(work.missing), 0)
        for part in written:
            total += part
            advance(part.reviews, part.tokens)
    if not work.recorded:
        finished = FinishedShard(
            corpus=work.corpus,
            shards=work.shard.shards,
            number=work.shard.number,
            reviews=len(work.rows) + len(work.removed),
        )
        store.finish_shard(namespace.version, finished)
    return PrecomputeReport(
        reviews=len(work.rows),
        removed=len(work.removed),
        already_there=len(work.rows) - len(work.missing),
        written=total,
        seconds=time.perf_counter() - started,
        version=namespace.version,
    )


def _encoded(batches: Iterator[TokenBatch], encoder: BatchEncoder) -> Iterator[tuple[TokenBatch, list[FloatMatrix]]]:
    for batch in batches:
        yield batch, encoder.states(batch)


def _entries(
    table: ReviewTable, batch: TokenBatch, states: Sequence[FloatMatrix], reader: TextReader
) -> list[ReviewEntry]:
    """The entries of one batch, with what their texts say beyond their ratings."""
    rows = batch.rows.tolist()
    texts, items = [table.text[row] for row in rows], [table.item[row] for row in rows]
    surpluses = reader.surpluses(texts, items, table.rating[batch.rows].tolist())
    return [
        table.entry(row, len(matrix), surplus) for row, matrix, surplus in zip(rows, states, surpluses, strict=True)
    ]


def _write(
    entries: Sequence[ReviewEntry],
    tokens: int,
    states: Sequence[FloatMatrix],
    store: MaintenanceStore,
    codec: StateCodec,
) -> Written:
    """Store one batch."""
    payloads = [codec.encode(matrix) for matrix in states]
    store.put(codec.namespace.version, list(zip(entries, payloads, strict=True)))
    return Written(reviews=len(entries), tokens=tokens, bytes=sum(map(len, payloads)))


def _missing(table: ReviewTable, rows: NDArray[np.int64], store: MaintenanceStore, version: str) -> NDArray[np.int64]:
    is_missing: list[bool] = []
    for start in range(0, len(rows), REVIEWS_PER_LOOKUP):
        # The number of state rows is not part of a key, so 0 will do.
        entries = [table.entry(row, 0) for row in rows[start : start + REVIEWS_PER_LOOKUP].tolist()]
        is_missing += store.missing(version, entries)
    missing: NDArray[np.int64] = rows[np.array(is_missing, dtype=bool)]
    return missing


def _was_finished(shard: Shard, corpus: str, finished: Sequence[FinishedShard]) -> bool:
    """Whether this shard of the corpus was finished, by itself or as part of all shards of another division."""
    of_corpus = {(found.shards, found.number) for found in finished if found.corpus == corpus}
    divisions = {shards for shards, _ in of_corpus}
    return (shard.shards, shard.number) in of_corpus or any(
        all((shards, number) in of_corpus for number in range(1, shards + 1)) for shards in divisions
    )


def _without_trace(
    table: ReviewTable, rows: NDArray[np.int64], store: MaintenanceStore, version: str
) -> NDArray[np.int64]:
    """Rows of the reviews with neither a state nor an entry in a list. A review lost by accident leaves one of them."""
    traceless: list[bool] = []
    for start in range(0, len(rows), REVIEWS_PER_LOOKUP):
        entries = [table.entry(row, 0) for row in rows[start : start + REVIEWS_PER_LOOKUP].tolist()]
        users, items = ({side.entity(entry) for entry in entries} for side in Side)
        lists = chain(*store.review_lists(version, users=sorted(users), items=sorted(items)))
        listed = {listed_entry.review_id for reviews in lists for listed_entry in reviews}
        states = store.states(version, [entry.review_id for entry in entries])
        traceless += [
            state is None and entry.review_id not in listed for entry, state in zip(entries, states, strict=True)
        ]
    removed: NDArray[np.int64] = rows[np.array(traceless, dtype=bool)]
    return removed


def _corpus_digest(table: ReviewTable, rows: NDArray[np.int64]) -> str:
    """Digest of the reviews at ``rows``, 16 hexadecimal characters, the same on every machine."""
    digest = hashlib.blake2b(digest_size=8)
    for row in rows.tolist():
        digest.update(table.review_id[row].encode())
    return digest.hexdigest()
