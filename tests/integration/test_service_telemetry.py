"""The metrics and logs of a running service, and what they must never contain."""

import json
from dataclasses import replace

import httpx
import numpy as np
import pytest
import redis
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from support.app_settings import settings_for
from support.captured_log import captured_log
from support.redis_server import RedisServer
from support.running_app import running, serving, wait_until_ready
from support.tiny_bundle import Corpus, TinyBundle
from ubert_model.states import FloatMatrix, MaintenanceStore, open_store
from ubert_model.states.keys import RedisKeys
from ubert_service.app import create_app
from ubert_service.scoring.assembly import ScorerBatch
from ubert_service.scoring.runtime import ActiveDevice
from ubert_service.serving.opened import OpenedBundle
from ubert_service.settings import LogFormat

PRIVATE = "mellifluous"
REVIEW = {"user": "u1", "item": "i13", "rating": 2, "text": f"A {PRIVATE} board."}
PASSWORD = "hush-17"
BASES = {"full": ("u0", "i1"), "one_side": ("u0", "nothing"), "mean": ("nobody", "nothing")}

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(client: httpx.Client) -> Samples:
    response = client.get("/metrics").raise_for_status()
    assert response.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    return found.get((name, frozenset(labels.items())), 0.0)


def predict(client: httpx.Client, *pairs: tuple[str, str]) -> httpx.Response:
    return client.post("/predict", json={"pairs": [{"user": user, "item": item} for user, item in pairs]})


def test_metrics_count_the_requests_of_their_own_app_only(tiny: TinyBundle, filled_store: MaintenanceStore) -> None:
    settings = settings_for(tiny.bundle, runtime="auto")
    opened = OpenedBundle.open(settings)
    with (
        running(create_app(settings, opened, filled_store)) as client,
        running(create_app(settings, opened, filled_store)) as idle,
    ):
        wait_until_ready(client)  # after that, only requests ask the store
        bases = [one["basis"] for one in predict(client, *BASES.values()).json()["predictions"]]
        client.post("/reviews", json=REVIEW).raise_for_status()
        assert client.get("/users/nobody").status_code == 404
        assert client.get("/no/such/address").status_code == 404
        assert client.post("/predict", json={}).status_code == 422
        found, of_idle = samples(client), samples(idle)

    assert bases == list(BASES)
    for basis in BASES:
        assert value(found, "ubert_predictions_total", basis=basis) == 1
    assert value(found, "ubert_requests_total", route="/predict", status="2xx") == 1
    assert value(found, "ubert_requests_total", route="/predict", status="4xx") == 1
    assert value(found, "ubert_requests_total", route="/users/{user}", status="4xx") == 1
    assert value(found, "ubert_requests_total", route="unmatched", status="4xx") == 1
    assert value(found, "ubert_request_seconds_count", route="/predict") == 2
    assert value(found, "ubert_store_seconds_count", operation="states") == 1
    assert value(found, "ubert_store_seconds_count", operation="put_new") == 1
    assert value(found, "ubert_inference_seconds_count", graph="scorer") == 1
    assert value(found, "ubert_batch_tokens_sum", graph="scorer") > 2
    assert value(found, "ubert_batch_tokens_sum", graph="encoder") > 2
    assert value(found, "ubert_ready") == 1
    assert value(found, "ubert_memory_limit_bytes") >= value(found, "process_resident_memory_bytes") > 0
    assert value(found, "ubert_queue_requests") == 0
    assert not value(of_idle, "ubert_predictions_total", basis="full")
    assert of_idle["ubert_shadow_samples_total", frozenset({("fate", "failed")})] == 0  # exposed before the first
    assert not value(of_idle, "ubert_inference_seconds_count", graph="scorer")  # nor the trial of the runtimes


class GpuRuntime:
    """Stands in for one on a GPU, which is checked time and again."""

    device: ActiveDevice = "cuda"

    def score(self, batch: ScorerBatch) -> NDArray[np.float32]:
        return np.zeros(len(batch.item), dtype=np.float32)


def test_the_checks_of_the_device_count_as_no_run_of_the_scorer(
    tiny: TinyBundle, filled_store: MaintenanceStore
) -> None:
    settings = settings_for(tiny.bundle)
    on_gpu = replace(OpenedBundle.open(settings), runtime=GpuRuntime())
    with running(create_app(settings, on_gpu, filled_store)) as client:
        wait_until_ready(client)  # only once the device was checked
        assert not value(samples(client), "ubert_inference_seconds_count", graph="scorer")
        predict(client, BASES["full"]).raise_for_status()
        assert value(samples(client), "ubert_inference_seconds_count", graph="scorer") == 1


def test_metric_labels_never_contain_what_a_caller_sent(tiny: TinyBundle, filled_store: MaintenanceStore) -> None:
    with serving(settings_for(tiny.bundle), filled_store) as client:
        wait_until_ready(client)
        predict(client, *BASES.values())
        client.get("/users/nobody")
        before = {series for series in samples(client) if not series[0].startswith("ubert_request")}
        for number in range(5):
            predict(client, (f"u{number}", PRIVATE), (PRIVATE, f"i{number}"))
            client.get(f"/users/{PRIVATE}{number}")
            client.get(f"/{PRIVATE}/{number}")
        after = {series for series in samples(client) if not series[0].startswith("ubert_request")}
        text = client.get("/metrics").text
    assert after == before
    assert PRIVATE not in text


def test_missing_states_and_store_failures_are_counted_and_ready_becomes_0(tiny: TinyBundle, corpus: Corpus) -> None:
    with RedisServer() as server:
        store = open_store(server.url)
        corpus.write(store, tiny.bundle)
        settings = settings_for(tiny.bundle, resident_bytes=0)
        version = tiny.bundle.manifest.namespace(settings.codec).version
        with serving(settings, store) as client:
            read = next(entry for entry in corpus.of_user("u0") if entry.rows)
            with redis.Redis.from_url(server.url) as raw:
                raw.unlink(RedisKeys(version).state(read.review_id))
            (prediction,) = predict(client, ("u0", "i20")).json()["predictions"]
            healthy = samples(client)
            server.stop()
            assert predict(client, ("u0", "i20")).status_code == 503
            away = samples(client)
        store.close()
    assert value(healthy, "ubert_missing_states_total") == prediction["missing_states"] == 1
    assert (value(healthy, "ubert_ready"), value(away, "ubert_ready")) == (1, 0)
    assert value(away, "ubert_store_failures_total", operation="review_lists") == 1
    assert value(away, "ubert_requests_total", route="/predict", status="5xx") == 1


class FailingEncoder:
    """Fails with an unexpected error while it has a text in hand."""

    def encode(self, text: str) -> FloatMatrix:
        raise RuntimeError(f"a bug at length {len(text)}")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_logs_never_contain_a_reviews_text_or_the_stores_password(
    tiny: TinyBundle, corpus: Corpus, log_format: LogFormat
) -> None:
    with RedisServer("--requirepass", PASSWORD) as server, captured_log(log_format) as log:
        url = server.url.replace("redis://", f"redis://:{PASSWORD}@")
        store = open_store(url)
        corpus.write(store, tiny.bundle)
        settings = settings_for(tiny.bundle, texts=True)
        opened = OpenedBundle.open(settings)
        with running(create_app(settings, opened, store)) as client:
            statuses = [client.post("/reviews", json=REVIEW).status_code]
            taken = {**REVIEW, "review_id": corpus.entries[0].review_id}
            for body in ({**REVIEW, "rating": 9}, {**REVIEW, "colour": PRIVATE}, taken):
                statuses.append(client.post("/reviews", json=body).status_code)
            inline: dict[str, object] = {"user": "u1", "item": "i4", "user_texts": [{"text": f"A {PRIVATE} tone."}]}
            for body in (inline, {**inline, "user_texts": [{"text": f"A {PRIVATE} tone.", "rating": 9}]}):
                statuses.append(client.post("/explain", json=body).status_code)
            server.stop()
            statuses.append(client.post("/reviews", json=REVIEW).status_code)
            server.start()
            store.open_namespace(opened.codec.namespace)
        with running(create_app(settings, replace(opened, encoder=FailingEncoder()), store)) as client:
            response = client.post("/reviews", json=REVIEW, headers={"X-Request-ID": "order-18"})
            statuses.append(response.status_code)
        store.close()
    assert statuses == [201, 422, 422, 409, 200, 422, 503, 500]
    assert "order-18" in log.getvalue()
    assert "a bug at length" in log.getvalue()
    assert PRIVATE not in log.getvalue()
    assert PASSWORD not in log.getvalue()


def test_only_probes_that_fail_are_logged_above_debug(
    tiny: TinyBundle, corpus: Corpus, lmdb_store: MaintenanceStore
) -> None:
    def levels() -> dict[tuple[str, int], str]:
        """The level of each request's line, by route and status. A request is logged after its answer."""
        events = [json.loads(line) for line in log.getvalue().splitlines()]
        requests = [event for event in events if event["logger"] == "ubert_service.requests"]
        return {(event["route"], event["status"]): event["level"] for event in requests}

    with captured_log("json") as log, serving(settings_for(tiny.bundle), lmdb_store) as client:
        assert client.get("/readyz").status_code == 503
        corpus.write(lmdb_store, tiny.bundle)
        wait_until_ready(client)
        for path in ("/healthz", "/metrics", "/version"):
            client.get(path).raise_for_status()
    assert levels() == {
        ("/readyz", 503): "INFO",
        ("/readyz", 200): "DEBUG",
        ("/healthz", 200): "DEBUG",
        ("/metrics", 200): "DEBUG",
        ("/version", 200): "INFO",
    }


def test_the_json_log_line_of_a_request_has_its_id_route_status_and_seconds(
    tiny: TinyBundle, filled_store: MaintenanceStore
) -> None:
    with captured_log("json") as log, serving(settings_for(tiny.bundle), filled_store) as client:
        client.get("/users/nobody", headers={"X-Request-ID": "order-19"})
    events = [json.loads(line) for line in log.getvalue().splitlines()]
    (line,) = (event for event in events if event["logger"] == "ubert_service.requests")
    assert {name: line[name] for name in ("request_id", "method", "route", "status", "level")} == {
        "request_id": "order-19",
        "method": "GET",
        "route": "/users/{user}",
        "status": 404,
        "level": "INFO",
    }
    assert 0 < line["seconds"] < 10
    (problem,) = (event for event in events if event.get("problem"))
    assert (problem["problem"], problem["request_id"]) == ("unknown-user", "order-19")
    assert "nobody" not in log.getvalue()  # no log contains identifiers of users
