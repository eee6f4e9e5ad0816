"""``Tracing`` by OpenTelemetry, from the extra ``otel``; imported only if traces are sent."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ubert_service.observability.tracing import Answered, Taken

_NAME = "u-bert"


def sending_to(endpoint: str) -> SpanProcessor:
    """Sends spans in batches to a collector's OTLP/HTTP address, such as ``http://localhost:4318/v1/traces``."""
    return BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint))


class OpenTelemetryTracing:
    """A span for each request, and within it one for each piece of its work, with an event when a thread takes it.

    It honours ``OTEL_RESOURCE_ATTRIBUTES``, ``OTEL_SERVICE_NAME`` and ``OTEL_TRACES_SAMPLER``.
    """

    def __init__(self, processor: SpanProcessor) -> None:
        named = Resource({SERVICE_NAME: _NAME}).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=named, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer(_NAME)
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def request(self, *, method: str, headers: Mapping[str, str], request_id: str) -> Iterator[Answered]:
        attributes = {"http.request.method": method, "ubert.request_id": request_id}
        with self._span(method, attributes, self._propagator.extract(headers), SpanKind.SERVER) as span:

            def answered(route: str, status: int | None) -> None:
                span.update_name(f"{method} {route}")
                span.set_attribute("http.route", route)
                if status is not None:
                    span.set_attribute("http.response.status_code", status)
                if status is None or status >= 500:
                    span.set_status(StatusCode.ERROR)

            yield answered

    @contextmanager
    def work(self, *, tokens: int) -> Iterator[Taken]:
        with self._span("work", {"ubert.tokens": tokens}) as span:
            yield partial(span.add_event, "taken")

    @contextmanager
    def _span(
        self,
        name: str,
        attributes: Mapping[str, str | int],
        origin: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> Iterator[Span]:
        # An exception's message may name a user or an item; its class does not.
        with self._tracer.start_as_current_span(
            name, origin, kind, attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except Exception as error:
                span.set_status(StatusCode.ERROR)
                span.set_attribute("error.type", type(error).__name__)
                raise

    def close(self) -> None:
        """Send all pending spans."""
        self._provider.shutdown()
