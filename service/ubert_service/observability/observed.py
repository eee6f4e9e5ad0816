"""Decorators of the store and the graphs that report how long each call takes."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from ubert_model.states import (
    Changes,
    FinishedShard,
    FloatMatrix,
    Namespace,
    ReviewEntry,
    Revision,
    Side,
    StateStore,
)
from ubert_service.explaining.explainer_graph import OutputDecomposer, PairParts
from ubert_service.scoring.assembly import ScorerBatch
from ubert_service.scoring.encoding import ReviewEncoding
from ubert_service.scoring.runtime import ActiveDevice, ScoringRuntime
from ubert_service.telemetry import Telemetry


class ObservedStore:
    """A ``StateStore`` that reports each operation under its own name."""

    def __init__(self, store: StateStore, telemetry: Telemetry) -> None:
        self._store = store
        self._telemetry = telemetry

    @property
    def local(self) -> bool:
        return self._store.local

    def open_namespace(self, namespace: Namespace) -> None:
        with self._timed("open_namespace"):
            self._store.open_namespace(namespace)

    def namespaces(self) -> list[Namespace]:
        with self._timed("namespaces"):
            return self._store.namespaces()

    def drop_namespace(self, version: str) -> int:
        with self._timed("drop_namespace"):
            return self._store.drop_namespace(version)

    def put(
        self, version: str, reviews: Sequence[tuple[ReviewEntry, bytes]], texts: Sequence[tuple[str, str]] = ()
    ) -> Revision:
        with self._timed("put"):
            return self._store.put(version, reviews, texts)

    def delete(self, version: str, entries: Sequence[ReviewEntry]) -> Revision:
        with self._timed("delete"):
            return self._store.delete(version, entries)

    def put_texts(self, version: str, texts: Sequence[tuple[str, str]]) -> None:
        with self._timed("put_texts"):
            self._store.put_texts(version, texts)

    def texts(self, version: str, review_ids: Sequence[str]) -> list[str | None]:
        with self._timed("texts"):
            return self._store.texts(version, review_ids)

    def changes(self, version: str, since: Revision | None) -> Changes:
        with self._timed("changes"):
            return self._store.changes(version, since)

    def list_lengths(self, version: str) -> Iterator[tuple[Side, str, int]]:
        return self._store.list_lengths(version)

    def candidate_sets(self) -> list[str]:
        with self._timed("candidate_sets"):
            return self._store.candidate_sets()

    def put_candidates(self, name: str, items: Sequence[str]) -> None:
        with self._timed("put_candidates"):
            self._store.put_candidates(name, items)

    def candidates(self, name: str) -> list[str] | None:
        with self._timed("candidates"):
            return self._store.candidates(name)

    def delete_candidates(self, name: str) -> bool:
        with self._timed("delete_candidates"):
            return self._store.delete_candidates(name)

    def missing(self, version: str, entries: Sequence[ReviewEntry]) -> list[bool]:
        with self._timed("missing"):
            return self._store.missing(version, entries)

    def states(self, version: str, review_ids: Sequence[str]) -> list[bytes | None]:
        with self._timed("states"):
            return self._store.states(version, review_ids)

    def user_reviews(self, version: str, users: Sequence[str]) -> list[list[ReviewEntry]]:
        with self._timed("user_reviews"):
            return self._store.user_reviews(version, users)

    def item_reviews(self, version: str, items: Sequence[str]) -> list[list[ReviewEntry]]:
        with self._timed("item_reviews"):
            return self._store.item_reviews(version, items)

    def review_lists(
        self, version: str, *, users: Sequence[str], items: Sequence[str]
    ) -> tuple[list[list[ReviewEntry]], list[list[ReviewEntry]]]:
        with self._timed("review_lists"):
            return self._store.review_lists(version, users=users, items=items)

    def users(self, version: str) -> list[str]:
        with self._timed("users"):
            return self._store.users(version)

    def items(self, version: str) -> list[str]:
        with self._timed("items"):
            return self._store.items(version)

    def state_sizes(self, version: str) -> Iterator[tuple[str, int]]:
        with self._timed("state_sizes"):
            yield from self._store.state_sizes(version)

    def delete_states(self, version: str, review_ids: Sequence[str]) -> Revision:
        with self._timed("delete_states"):
            return self._store.delete_states(version, review_ids)

    def finish_shard(self, version: str, shard: FinishedShard) -> None:
        with self._timed("finish_shard"):
            self._store.finish_shard(version, shard)

    def finished_shards(self, version: str) -> list[FinishedShard]:
        with self._timed("finished_shards"):
            return self._store.finished_shards(version)

    def claim(self, version: str, review_id: str, claimant: bytes) -> bytes | None:
        with self._timed("claim"):
            return self._store.claim(version, review_id, claimant)

    def claimant(self, version: str, review_id: str) -> bytes | None:
        with self._timed("claimant"):
            return self._store.claimant(version, review_id)

    def unclaim(self, version: str, review_id: str) -> None:
        with self._timed("unclaim"):
            self._store.unclaim(version, review_id)

    def hold(self, version: str, holder: str, seconds: float) -> None:
        with self._timed("hold"):
            self._store.hold(version, holder, seconds)

    def release(self, version: str, holder: str) -> None:
        with self._timed("release"):
            self._store.release(version, holder)

    def holders(self, version: str) -> list[str]:
        with self._timed("holders"):
            return self._store.holders(version)

    def ping(self) -> None:
        with self._timed("ping"):
            self._store.ping()

    def close(self) -> None:
        self._store.close()

    @contextmanager
    def _timed(self, operation: str) -> Iterator[None]:
        started = time.perf_counter()
        failed = True
        try:
            yield
            failed = False
        finally:
            seconds = time.perf_counter() - started
            self._telemetry.store_called(operation=operation, seconds=seconds, failed=failed)


class ObservedRuntime:
    """A ``ScoringRuntime`` that reports each run of the scorer graph."""

    def __init__(self, runtime: ScoringRuntime, telemetry: Telemetry) -> None:
        self._runtime = runtime
        self._telemetry = telemetry

    def device(self) -> ActiveDevice:
        return self._runtime.device()

    def score(self, batch: ScorerBatch) -> NDArray[np.float32]:
        started = time.perf_counter()
        outputs = self._runtime.score(batch)
        self._telemetry.graph_ran(
            graph="scorer",
            tokens=batch.padded_tokens,
            seconds=time.perf_counter() - started,
        )
        return outputs


class ObservedDecomposer:
    """An ``OutputDecomposer`` that reports each run of the explainer graph."""

    def __init__(self, decomposer: OutputDecomposer, telemetry: Telemetry) -> None:
        self._decomposer = decomposer
        self._telemetry = telemetry

    def decompose(self, batch: ScorerBatch) -> PairParts:
        started = time.perf_counter()
        parts = self._decomposer.decompose(batch)
        self._telemetry.graph_ran(
            graph="explainer",
            tokens=batch.padded_tokens,
            seconds=time.perf_counter() - started,
        )
        return parts


class ObservedEncoder:
    """A ``ReviewEncoding`` that reports each review that it encodes."""

    def __init__(self, encoder: ReviewEncoding, telemetry: Telemetry) -> None:
        self._encoder = encoder
        self._telemetry = telemetry

    def device(self) -> ActiveDevice:
        return self._encoder.device()

    def encode(self, text: str) -> FloatMatrix:
        started = time.perf_counter()
        states = self._encoder.encode(text)
        if len(states):  # the graph does not run for a text without words
            self._telemetry.graph_ran(graph="encoder", tokens=len(states), seconds=time.perf_counter() - started)
        return states
