"""A span records the class of an exception, never its message."""

from contextlib import closing

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from ubert_service.observability.otel import OpenTelemetryTracing


@pytest.mark.parametrize("kind", ["request", "work"])
def test_a_failed_span_records_the_class_of_the_exception_and_not_its_message(kind: str) -> None:
    exporter = InMemorySpanExporter()
    with closing(OpenTelemetryTracing(SimpleSpanProcessor(exporter))) as tracing:
        opened = (
            tracing.work(tokens=1)
            if kind == "work"
            else tracing.request(method="POST", headers={}, request_id="order-20")
        )
        with pytest.raises(LookupError), opened:
            raise LookupError("nothing is known of the user mellifluous")
    (span,) = exporter.get_finished_spans()
    assert "mellifluous" not in span.to_json()
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes is not None
    assert span.attributes["error.type"] == "LookupError"
