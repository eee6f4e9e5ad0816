"""Decorators of the store and the graphs that report how long each call takes."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from ubert_model.states import FloatMatrix, StateStore
from ubert_service.explaining.explainer_graph import OutputDecomposer, PairParts
from ubert_service.observability.metrics import PrometheusMetrics
from ubert_service.scoring.assembly import ScorerBatch
from ubert_service.scoring.encoding import ReviewEncoding
from ubert_service.scoring.runtime import ScoringRuntime

T = TypeVar("T")

_UNREPORTED = frozenset({"local", "close", "list_lengths"})
"""What asks no server, or does so little by little while its caller reads on."""


def observed_store(store: StateStore, metrics: PrometheusMetrics) -> StateStore:
    """The same store, which reports each operation under its own name."""
    return cast("StateStore", _ObservedStore(store, metrics))


class _ObservedStore:
    def __init__(self, store: StateStore, metrics: PrometheusMetrics) -> None:
        self._store = store
        self._metrics = metrics

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._store, name)
        return operation if name in _UNREPORTED else partial(self._timed, name, operation)

    def _timed(self, name: str, operation: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        started = time.perf_counter()
        failed = True
        try:
            answer = operation(*args, **kwargs)
            failed = False
            return answer
        finally:
            self._metrics.store_called(operation=name, seconds=time.perf_counter() - started, failed=failed)


class ObservedRuntime:
    """A ``ScoringRuntime`` that reports each run of the scorer graph."""

    def __init__(self, runtime: ScoringRuntime, metrics: PrometheusMetrics) -> None:
        self._runtime = runtime
        self._metrics = metrics
        self.device = runtime.device

    def score(self, batch: ScorerBatch) -> NDArray[np.float32]:
        started = time.perf_counter()
        outputs = self._runtime.score(batch)
        seconds = time.perf_counter() - started
        self._metrics.graph_ran(graph="scorer", tokens=batch.padded_tokens, seconds=seconds)
        return outputs


class ObservedDecomposer:
    """An ``OutputDecomposer`` that reports each run of the explainer graph."""

    def __init__(self, decomposer: OutputDecomposer, metrics: PrometheusMetrics) -> None:
        self._decomposer = decomposer
        self._metrics = metrics

    def decompose(self, batch: ScorerBatch) -> PairParts:
        started = time.perf_counter()
        parts = self._decomposer.decompose(batch)
        seconds = time.perf_counter() - started
        self._metrics.graph_ran(graph="explainer", tokens=batch.padded_tokens, seconds=seconds)
        return parts


class ObservedEncoder:
    """A ``ReviewEncoding`` that reports each review that it encodes."""

    def __init__(self, encoder: ReviewEncoding, metrics: PrometheusMetrics) -> None:
        self._encoder = encoder
        self._metrics = metrics

    def encode(self, text: str) -> FloatMatrix:
        started = time.perf_counter()
        states = self._encoder.encode(text)
        if len(states):  # the graph does not run for a text without words
            self._metrics.graph_ran(graph="encoder", tokens=len(states), seconds=time.perf_counter() - started)
        return states
