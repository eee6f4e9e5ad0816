"""OpenTelemetry traces: the spans of a request, what they never contain, and no exporter unless traces are sent."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager

import httpx
import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from support.app_settings import settings_for
from support.running_app import running
from support.tiny_bundle import TinyBundle
from ubert_model.errors import ConfigError
from ubert_model.states import MaintenanceStore
from ubert_service.app import create_app
from ubert_service.commands.serve import opened_tracing
from ubert_service.observability.otel import OpenTelemetryTracing
from ubert_service.serving.opened import OpenedBundle

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PRIVATE = "mellifluous"


@contextmanager
def traced(tiny: TinyBundle, store: MaintenanceStore) -> Iterator[tuple[httpx.Client, InMemorySpanExporter]]:
    settings = settings_for(tiny.bundle)
    exporter = InMemorySpanExporter()
    with (
        closing(OpenTelemetryTracing(SimpleSpanProcessor(exporter))) as tracing,
        running(create_app(settings, OpenedBundle.open(settings), store, tracing)) as client,
    ):
        yield client, exporter


def test_a_request_and_its_work_are_spans_of_the_callers_trace(
    tiny: TinyBundle, filled_store: MaintenanceStore
) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-ID": "order-20"}
    with traced(tiny, filled_store) as (client, exporter):
        client.post("/predict", json={"pairs": [{"user": "u0", "item": "i1"}]}, headers=headers).raise_for_status()
    work, request = exporter.get_finished_spans()
    assert request.name == "POST /predict"
    assert dict(request.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/predict",
        "http.response.status_code": 200,
        "ubert.request_id": "order-20",
    }
    assert request.resource.attributes["service.name"] == "u-bert"
    assert request.parent is not None
    assert (f"{request.parent.trace_id:x}".zfill(32), f"{request.parent.span_id:x}") == (TRACE, PARENT)
    assert work.parent == request.context
    assert [event.name for event in work.events] == ["taken"]
    assert dict(work.attributes or {}) == {"ubert.tokens": 2 * tiny.model.config.max_rows}


def test_spans_never_contain_what_a_caller_sent(tiny: TinyBundle, filled_store: MaintenanceStore) -> None:
    review = {"user": PRIVATE, "item": "i1", "rating": 99, "text": PRIVATE}
    with traced(tiny, filled_store) as (client, exporter):
        statuses = [
            client.get(f"/users/{PRIVATE}").status_code,
            client.post("/reviews", json=review).status_code,
            client.post("/reviews", json={**review, "rating": 4}).status_code,
            client.delete("/reviews/none", params={"user": PRIVATE, "item": PRIVATE}).status_code,
        ]
    spans = exporter.get_finished_spans()  # a request's own span ends after its answer, and before the service does
    assert statuses == [404, 422, 201, 404]
    assert len(spans) == 8
    assert PRIVATE not in "".join(span.to_json() for span in spans)
    failed = [span for span in spans if span.name == "work" and span.status.status_code is StatusCode.ERROR]
    assert [span.attributes["error.type"] for span in failed if span.attributes] == [
        "UnknownUserError",
        "InputError",
        "UnknownReviewError",
    ]


@pytest.mark.parametrize("module", ["ubert_service.commands.serve", "ubert_service.app"])
def test_importing_the_service_does_not_import_the_exporter_of_traces(module: str) -> None:
    program = f"import sys, {module}; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=120)
    # FastAPI itself imports the API of OpenTelemetry if it is installed; only our module imports the exporter.
    assert not [
        name
        for name in ended.stdout.split()
        if name.startswith(("ubert_service.observability.otel", "opentelemetry.exporter"))
    ]


def test_without_the_exporter_the_error_names_the_extra_and_not_the_password(
    monkeypatch: pytest.MonkeyPatch, tiny: TinyBundle
) -> None:
    monkeypatch.delattr("ubert_service.observability.otel")
    monkeypatch.delitem(sys.modules, "ubert_service.observability.otel")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    settings = settings_for(tiny.bundle, traces="https://user:s3cret@collector/v1/traces")
    with pytest.raises(ConfigError, match=r"u-bert\[otel\]") as raised, opened_tracing(settings):
        pass
    assert "s3cret" not in str(raised.value)


def test_a_missing_module_of_our_own_is_not_taken_for_a_missing_extra(
    monkeypatch: pytest.MonkeyPatch, tiny: TinyBundle
) -> None:
    monkeypatch.delattr("ubert_service.observability.otel")
    monkeypatch.setitem(sys.modules, "ubert_service.observability.otel", None)
    settings = settings_for(tiny.bundle, traces="https://collector/v1/traces")
    with pytest.raises(ModuleNotFoundError), opened_tracing(settings):
        pass
