"""The metrics for Prometheus. Every app has its own registry; labels take few values, never a user or an item."""

from functools import partial
from typing import Literal, get_args

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    generate_latest,
)

from ubert_service.observability.container import memory_limit_bytes
from ubert_service.telemetry import Refusal, Residence, ShadowFate

Graph = Literal["scorer", "encoder", "explainer"]

MEDIA_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_STARS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_REQUESTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS = tuple(2.0**power for power in range(4, 17))
_OWN_CLASSES = {499, 504}
"""Statuses that tell more of the caller than of the service."""


class PrometheusMetrics:
    """Counts and times what an app reports, from any thread; a scrape reads ``exposition``. Times are in seconds.

    Failures are exposed as 0 before the first: for Prometheus, a series that appears at 1 has not risen.

    Implements the ports of :mod:`ubert_service.telemetry`, which describe what is not described here.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        counter = partial(Counter, registry=self._registry)
        gauge = partial(Gauge, registry=self._registry)
        histogram = partial(Histogram, registry=self._registry)
        ProcessCollector(registry=self._registry)
        memory_limit = gauge("ubert_memory_limit_bytes", "Memory that the container may take; +Inf: no limit.")
        memory_limit.set(memory_limit_bytes())
        self._info = Info("ubert", "The program, and which bundles it serves now.", registry=self._registry)
        self._requests = counter(
            "ubert_requests",
            "Requests by class of status. Classes of their own are 499, the caller left before the answer, and 504, as "
            "callers may set their own deadlines; none: the process ended before the answer.",
            ("route", "status"),
        )
        self._request_seconds = histogram(
            "ubert_request_seconds",
            "From the first byte of a request to the end of its answer.",
            ("route",),
            buckets=_SECONDS,
        )
        self._caller_requests = counter(
            "ubert_caller_requests",
            "Requests by the name of their API key; none without keys.",
            ("caller",),
        )
        self._store_seconds = histogram(
            "ubert_store_seconds",
            "One operation of the state store, whether it succeeded or failed.",
            ("operation",),
            buckets=_SECONDS,
        )
        self._store_failures = counter(
            "ubert_store_failures", "Operations of the state store that failed.", ("operation",)
        )
        self._inference_seconds = histogram(
            "ubert_inference_seconds", "One run of a graph.", ("graph",), buckets=_SECONDS
        )
        self._batch_tokens = histogram(
            "ubert_batch_tokens",
            "Rows of states that one run of a graph read, padding included; for the encoder: rows that it made.",
            ("graph",),
            buckets=_TOKENS,
        )
        self._queue_requests = gauge("ubert_queue_requests", "Requests that wait in the queue for a thread now.")
        self._queue_seconds = histogram("ubert_queue_seconds", "Wait in the queue for a thread.", buckets=_SECONDS)
        self._queue_batch_requests = histogram(
            "ubert_queue_batch_requests", "Requests in one batch.", buckets=_REQUESTS
        )
        self._queue_batch_tokens = histogram(
            "ubert_queue_batch_tokens", "The most tokens that one batch may read.", buckets=_TOKENS
        )
        self._parted = counter("ubert_batches_parted", "Batches that failed and were retried in halves.")
        self._refused = counter(
            "ubert_refused",
            "Requests refused, by the limit that they met: requests, tokens or wait in the queue, or closing.",
            ("limit",),
        )
        for limit in get_args(Refusal):
            self._refused.labels(limit=limit)
        self._expired = counter("ubert_expired", "Requests whose deadline passed before the answer.")
        self._cancelled = counter("ubert_cancelled", "Requests whose caller left before the answer.")
        self._predictions = counter("ubert_predictions", "Pairs rated, by what the rating was made from.", ("basis",))
        self._shadow_samples = counter(
            "ubert_shadow_samples", "Requests sampled for the shadow bundle, by whether it rated them.", ("fate",)
        )
        for fate in get_args(ShadowFate):
            self._shadow_samples.labels(fate=fate)
        self._shadow_difference = histogram(
            "ubert_shadow_difference_stars",
            "Absolute difference between the shadow bundle's rating of a pair and the live one.",
            buckets=_STARS,
        )
        self._missing_states = counter(
            "ubert_missing_states",
            "Reviews that predictions should have read, but whose states the store has lost.",
        )
        self._residents_asked = counter(
            "ubert_residents_asked",
            "Review lists and states that requests looked up, by whether this process held them.",
            ("kind", "outcome"),
        )
        self._residents_evicted = counter(
            "ubert_residents_evicted", "Lists and states evicted because memory was full."
        )
        self._residents_dropped = counter(
            "ubert_residents_dropped", "Lists and states invalidated because the store has changed."
        )
        self._residents_bytes = gauge("ubert_residents_bytes", "Bytes of review lists and states held by this process.")
        self._residents_stale_seconds = gauge(
            "ubert_residents_stale_seconds",
            "While the state store is away: age of the last confirmation that what is held is current; else 0.",
        )
        self._keys_outdated = gauge(
            "ubert_api_keys_outdated",
            "1 while the file of API keys cannot be used, so that the keys read before remain in force.",
        )
        self._ready = gauge("ubert_ready", "1 if the service was ready when last checked, as by /readyz.")

    def request_answered(self, *, route: str, status: int | None, seconds: float) -> None:
        """A request ended, with no answer if ``status`` is None. ``route``: the path template."""
        self._requests.labels(route=route, status="5xx")
        self._requests.labels(route=route, status=_class_of(status)).inc()
        self._request_seconds.labels(route=route).observe(seconds)

    def caller_answered(self, caller: str) -> None:
        """A request with the API key of this name ended."""
        self._caller_requests.labels(caller=caller).inc()

    def store_called(self, *, operation: str, seconds: float, failed: bool) -> None:
        """An operation of the state store has ended."""
        self._store_seconds.labels(operation=operation).observe(seconds)
        self._store_failures.labels(operation=operation).inc(failed)

    def graph_ran(self, *, graph: Graph, tokens: int, seconds: float) -> None:
        """A graph has run once. ``tokens``: rows of its input (states or token ids), padding included."""
        self._inference_seconds.labels(graph=graph).observe(seconds)
        self._batch_tokens.labels(graph=graph).observe(tokens)

    def work_started(self, *, waited: float) -> None:
        self._queue_seconds.observe(waited)

    def batch_started(self, *, requests: int, tokens: int) -> None:
        self._queue_batch_requests.observe(requests)
        self._queue_batch_tokens.observe(tokens)

    def batch_split(self) -> None:
        self._parted.inc()

    def work_refused(self, *, limit: Refusal) -> None:
        self._refused.labels(limit=limit).inc()

    def work_expired(self) -> None:
        self._expired.inc()

    def work_cancelled(self) -> None:
        self._cancelled.inc()

    def predicted(self, *, basis: str, pairs: int) -> None:
        """Pairs were rated. ``basis``: what their ratings were made from (``ubert_service.scoring.evidence.Basis``)."""
        self._predictions.labels(basis=basis).inc(pairs)

    def states_missed(self, count: int) -> None:
        """Predictions should have read ``count`` reviews whose states the store has lost."""
        self._missing_states.inc(count)

    def residents_asked(self, residence: Residence, *, hits: int, misses: int) -> None:
        self._residents_asked.labels(kind=residence, outcome="hit").inc(hits)
        self._residents_asked.labels(kind=residence, outcome="miss").inc(misses)

    def residents_evicted(self, count: int) -> None:
        self._residents_evicted.inc(count)

    def residents_dropped(self, count: int) -> None:
        self._residents_dropped.inc(count)

    def service_measured(self, *, version: str, bundle: str, shadow: str | None, codec: str, waiting: int) -> None:
        """Set what runs, and how many requests wait, for the scrape that follows."""
        self._info.info({"version": version, "bundle": bundle, "shadow": shadow or "", "codec": codec})
        self._queue_requests.set(waiting)

    def residents_measured(self, *, held_bytes: int, stale_s: float) -> None:
        """Set the gauges of the residents, for the scrape that follows."""
        self._residents_bytes.set(held_bytes)
        self._residents_stale_seconds.set(stale_s)

    def shadow_sampled(self, *, fate: ShadowFate) -> None:
        self._shadow_samples.labels(fate=fate).inc()

    def shadow_differed(self, *, stars: float) -> None:
        self._shadow_difference.observe(stars)

    def keys_checked(self, *, in_force: bool) -> None:
        """The file of API keys was checked. ``in_force`` False: it is unusable, so the keys read before still count."""
        self._keys_outdated.set(not in_force)

    def readiness_checked(self, *, ready: bool) -> None:
        self._ready.set(ready)

    def exposition(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self._registry)


def _class_of(status: int | None) -> str:
    if status is None:
        return "none"
    return str(status) if status in _OWN_CLASSES else f"{status // 100}xx"
