"""Admission, batching, deadlines, cancellation and shutdown under load, over real connections."""

import json
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from http.client import HTTPConnection, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from numpy.typing import NDArray

from support.app_settings import settings_for
from support.captured_log import captured_log
from support.metrics import metric
from support.problems import problem_of
from support.running_app import running
from support.serve_process import ServeProcess
from support.tiny_bundle import Corpus, TinyBundle
from support.waiting import wait_until
from ubert_model.states import FloatMatrix, MaintenanceStore
from ubert_service.app import create_app
from ubert_service.http.problems import Problem
from ubert_service.scoring.assembly import ScorerBatch
from ubert_service.scoring.encoding import OnnxReviewEncoder
from ubert_service.scoring.engine import ScoringEngine
from ubert_service.scoring.runtime import ScoringRuntime
from ubert_service.serving.opened import OpenedBundle

TIMEOUT_S = 60.0
QUEUE_REQUESTS = 64
PREDICT = {"pairs": [{"user": "u0", "item": "i1"}]}
RANK = {"user": "u0", "candidates": ["i1"]}


class HeldRuntime:
    """The bundle's own runtime, blocked until ``released`` is set."""

    def __init__(self, runtime: ScoringRuntime) -> None:
        self._runtime = runtime
        self.device = runtime.device
        self.entered = threading.Semaphore(0)
        self.released = threading.Event()
        self.runs = 0

    def score(self, batch: ScorerBatch) -> NDArray[np.float32]:
        self.runs += 1
        self.entered.release()
        assert self.released.wait(TIMEOUT_S)
        return self._runtime.score(batch)


@pytest.fixture
def store(filled_store: MaintenanceStore) -> MaintenanceStore:
    return filled_store


class Service:
    """An app with one scoring thread, whose runtime blocks until it is released."""

    def __init__(self, tiny: TinyBundle, store: MaintenanceStore, **options: Any) -> None:
        settings = settings_for(tiny.bundle, **{"concurrency": 1, **options})
        opened = OpenedBundle.open(settings)
        self.runtime = HeldRuntime(opened.runtime)
        self.app: FastAPI = create_app(settings, replace(opened, runtime=self.runtime), store)
        self._callers = ThreadPoolExecutor(32)

    def __enter__(self) -> "Service":
        with ExitStack() as stack:
            stack.enter_context(self._callers)
            self.client = stack.enter_context(running(self.app))
            stack.callback(self.runtime.released.set)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *failure: object) -> None:
        self.runtime.released.set()
        self._stack.close()

    def send(self, path: str, body: Any, **headers: str) -> Callable[[], httpx.Response]:
        """Send a request from a thread of its own; the function returned waits for the answer."""
        return self._callers.submit(self.client.post, path, json=body, headers=headers).result

    def hold(self) -> Callable[[], httpx.Response]:
        """Send a request that occupies the scoring thread; returns once it does."""
        answer = self.send("/predict", PREDICT)
        assert self.runtime.entered.acquire(timeout=TIMEOUT_S)
        return answer

    def wait_until_queued(self, count: int) -> None:
        wait_until(lambda: self.waiting == count)

    @property
    def waiting(self) -> int:
        waiting: int = self.app.state.context.scheduler.admission.waiting
        return waiting


def test_a_full_queue_refuses_requests_with_429_and_admitted_ones_are_answered(
    tiny: TinyBundle, store: MaintenanceStore
) -> None:
    with Service(tiny, store, queue_requests=3) as service:
        admitted = [service.hold(), *(service.send("/rank", RANK) for _ in range(3))]
        service.wait_until_queued(3)
        refused = [service.client.post(path, json=body) for path, body in (("/predict", PREDICT), ("/rank", RANK))]
        for response in refused:
            assert problem_of(response) == (429, "overloaded")
            assert int(response.headers["retry-after"]) > 0
        for path in ("/healthz", "/readyz", "/metrics"):
            assert service.client.get(path).status_code == 200
        service.runtime.released.set()
        assert [answer().status_code for answer in admitted] == [200] * 4
        assert service.client.post("/predict", json=PREDICT).status_code == 200
        assert metric(service.client, "ubert_refused_total") == 2


def test_a_request_that_would_wait_too_long_gets_429_with_retry_after(
    tiny: TinyBundle, store: MaintenanceStore
) -> None:
    with Service(tiny, store, queue_wait_ms=1.0) as service, captured_log("text") as log:
        held = service.hold()
        waiting = service.send("/predict", PREDICT)  # an empty queue always admits
        service.wait_until_queued(1)
        wait_until(lambda: service.app.state.context.scheduler.admission.expected_wait > 1.01)
        began = time.monotonic()
        refused = [service.client.post("/rank", json=RANK, headers={"X-Request-ID": f"late-{n}"}) for n in range(3)]
        seconds = time.monotonic() - began
        for number, response in enumerate(refused):
            assert problem_of(response) == (429, "overloaded")
            assert int(response.headers["retry-after"]) >= 2
            assert response.headers["x-request-id"] == response.json()["request_id"] == f"late-{number}"
            assert response.headers["content-type"] == "application/problem+json"
            assert Problem.model_validate(response.json()).status == 429
        service.runtime.released.set()
        assert [held().status_code, waiting().status_code] == [200, 200]
        assert metric(service.client, "ubert_refused_total") == 3
    assert "late-" not in log.getvalue()
    assert "refused 1 requests" in log.getvalue()  # logged at once, then at most once a second
    assert log.getvalue().count("refused ") <= 1 + seconds


def test_the_queue_is_bounded_in_tokens(tiny: TinyBundle, store: MaintenanceStore) -> None:
    large = {"user": "u0", "candidates": [f"i{number}" for number in range(12)]}
    tokens = tiny.model.config.max_rows * 13
    with Service(tiny, store, queue_tokens=2 * tokens) as service:
        admitted = [service.hold(), service.send("/rank", large), service.send("/rank", large)]
        service.wait_until_queued(2)
        assert service.client.post("/predict", json=PREDICT).status_code == 429
        service.runtime.released.set()
        assert [answer().status_code for answer in admitted] == [200] * 3


def test_a_written_review_counts_as_max_length_tokens(tiny: TinyBundle, store: MaintenanceStore) -> None:
    with Service(tiny, store) as service:
        review = {"user": "u0", "item": "i1", "rating": 4, "text": "Warm."}
        assert service.client.post("/reviews", json=review).status_code == 201
        assert metric(service.client, "ubert_queue_batch_tokens_sum") == tiny.model.config.max_length


def test_queued_requests_are_scored_in_one_batch_and_each_gets_its_own_answer(
    tiny: TinyBundle, store: MaintenanceStore
) -> None:
    pairs = [{"user": f"u{number % 8}", "item": f"i{number}"} for number in range(12)]
    with Service(tiny, store) as service:
        held = service.hold()
        answers = [service.send("/predict", {"pairs": [pair]}) for pair in pairs]
        service.wait_until_queued(12)
        service.runtime.released.set()
        together = [answer().json()["predictions"][0] for answer in answers]
        held()
        assert metric(service.client, "ubert_queue_batch_requests_count") == 2
        alone = service.client.post("/predict", json={"pairs": pairs}).json()["predictions"]
    assert [{"user": one["user"], "item": one["item"]} for one in together] == pairs
    assert [one["rating"] for one in together] == pytest.approx([one["rating"] for one in alone], abs=1e-5)


def test_requests_that_exclude_different_reviews_are_scored_apart(
    tiny: TinyBundle, store: MaintenanceStore, corpus: Corpus
) -> None:
    read = next(entry for entry in corpus.of_user("u0") if entry.rows)
    without = {**PREDICT, "exclude_review_ids": [read.review_id]}
    with Service(tiny, store) as service:
        held = service.hold()
        answers = [service.send("/predict", body) for body in (PREDICT, without, PREDICT, without)]
        service.wait_until_queued(4)
        service.runtime.released.set()
        together = [answer().json() for answer in answers]
        held()
        alone = [service.client.post("/predict", json=body).json() for body in (PREDICT, without)]
    assert together == alone * 2
    assert alone[0] != alone[1]


def test_a_request_that_reads_a_damaged_state_fails_alone(
    tiny: TinyBundle, store: MaintenanceStore, corpus: Corpus
) -> None:
    damaged = next(entry for entry in corpus.of_user("u3") if entry.rows and entry.item != PREDICT["pairs"][0]["item"])
    store.put(tiny.bundle.manifest.namespace("fp32").version, [(damaged, b"UBRS and nothing more")])
    users = ("u0", "u1", "u3", "u2", "u4", "u5")
    item = next(
        f"i{number}" for number in range(12) if all(entry.user != "u3" for entry in corpus.of_item(f"i{number}"))
    )
    with Service(tiny, store) as service:
        held = service.hold()
        answers = {user: service.send("/predict", {"pairs": [{"user": user, "item": item}]}) for user in users}
        service.wait_until_queued(len(users))
        service.runtime.released.set()
        held()
        statuses = {user: answer().status_code for user, answer in answers.items()}
        assert problem_of(answers["u3"]())[1] == "state-corrupt"
    assert statuses == {user: 500 if user == "u3" else 200 for user in users}


def test_an_expired_request_gets_504_and_is_never_scored(
    tiny: TinyBundle, store: MaintenanceStore, caplog: pytest.LogCaptureFixture
) -> None:
    with Service(tiny, store) as service:
        held = service.hold()
        for path, body in (("/predict", PREDICT), ("/rank", RANK)):
            response = service.client.post(path, json=body, headers={"X-Request-Timeout": "0.05"})
            assert problem_of(response) == (504, "deadline-passed")
        assert service.waiting == 0
        service.runtime.released.set()
        assert held().status_code == 200
        assert (service.runtime.runs, metric(service.client, "ubert_expired_total")) == (1, 2)
        counted = {status: metric(service.client, "ubert_requests_total", status=status) for status in ("504", "5xx")}
    # A deadline of the caller's own that is too short must not count as a failure of the service.
    assert counted == {"504": 2, "5xx": 0}
    problems = [record for record in caplog.records if "deadline-passed" in record.getMessage()]
    assert [record.levelname for record in problems] == ["WARNING", "WARNING"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/explain", {"user": "u0", "item": "i1"}),
        ("/predict", {**PREDICT, "explain": True}),
        ("/predict", {"pairs": [{"user": f"u{n}", "item": "i1"} for n in range(4)]}),
        ("/rank", {"user": "u0", "candidates": ["i1", "i2", "i3"]}),
    ],
    ids=str,
)
def test_running_work_stops_at_its_deadline(
    tiny: TinyBundle, store: MaintenanceStore, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any]
) -> None:
    monkeypatch.setitem(ScoringEngine.__init__.__kwdefaults__ or {}, "batch_tokens", 1)  # one run per rating
    with Service(tiny, store) as service:
        service.runtime.released.set()
        assert service.client.post(path, json=body).status_code == 200
        whole = service.runtime.runs
        assert whole > 1
        service.runtime.released.clear()
        # Many times as long as the work, which has been done once, takes to start.
        expired = service.client.post(path, json=body, headers={"X-Request-Timeout": "1"})
        assert problem_of(expired) == (504, "deadline-passed")
        assert service.runtime.runs == whole + 1
        service.runtime.released.set()
        assert service.client.post("/predict", json=PREDICT).status_code == 200  # after it, in the one thread
        assert service.runtime.runs == whole + 2


def test_no_further_text_is_encoded_after_the_deadline(
    tiny: TinyBundle, store: MaintenanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []
    released = threading.Event()

    def encode_held(encoder: OnnxReviewEncoder, text: str) -> FloatMatrix:
        encoded.append(text)
        assert released.wait(TIMEOUT_S)
        return encode(encoder, text)

    encode = OnnxReviewEncoder.encode
    monkeypatch.setattr(OnnxReviewEncoder, "encode", encode_held)
    texts = [{"text": f"All big color {number}."} for number in range(20)]
    with Service(tiny, store) as service:
        service.runtime.released.set()
        body = {**PREDICT, "user_texts": texts}
        expired = service.client.post("/predict", json=body, headers={"X-Request-Timeout": "1"})
        assert problem_of(expired) == (504, "deadline-passed")
        released.set()
        assert service.client.post("/predict", json=PREDICT).status_code == 200  # after it, in the one thread
    assert encoded == [texts[0]["text"]]


def test_request_timeout_is_the_deadline_of_requests_that_name_none(tiny: TinyBundle, store: MaintenanceStore) -> None:
    with Service(tiny, store, request_timeout=1.0) as service:
        response = service.client.post("/predict", json=PREDICT)
        assert problem_of(response) == (504, "deadline-passed")


@pytest.mark.parametrize("seconds", ["0", "-1", "soon", "nan", "inf", "1e9"])
def test_an_invalid_deadline_is_refused(tiny: TinyBundle, store: MaintenanceStore, seconds: str) -> None:
    with Service(tiny, store) as service:
        response = service.client.post("/predict", json=PREDICT, headers={"X-Request-Timeout": seconds})
    assert problem_of(response) == (422, "invalid-request")
    assert response.json()["errors"][0]["pointer"] == "/header/X-Request-Timeout"


def raw_request(path: str, body: Any, *, length: int | None = None) -> bytes:
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {length or len(content)}\r\n\r\n".encode() + content


def connect(client: httpx.Client) -> socket.socket:
    return socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=TIMEOUT_S)


def answer_to(caller: socket.socket) -> tuple[int, bytes]:
    """Status and body of an answer, which may arrive in parts."""
    with HTTPResponse(caller) as response:
        response.begin()
        return response.status, response.read()


def test_the_time_that_a_body_takes_to_arrive_counts_towards_the_deadline(
    tiny: TinyBundle, store: MaintenanceStore
) -> None:
    head, separator, body = raw_request("/predict", PREDICT).partition(b"\r\n\r\n")
    with Service(tiny, store) as service, connect(service.client) as caller:
        service.runtime.released.set()
        assert service.client.post("/predict", json=PREDICT).status_code == 200  # all that a first request prepares
        caller.sendall(head + b"\r\nX-Request-Timeout: 0.3" + separator)
        time.sleep(0.6)
        caller.sendall(body)
        status, answer = answer_to(caller)
    assert (status, json.loads(answer)["type"]) == (504, "urn:u-bert:problem:deadline-passed")


def test_the_work_of_a_caller_that_disconnects_is_cancelled(tiny: TinyBundle, store: MaintenanceStore) -> None:
    with Service(tiny, store) as service:
        held = service.hold()
        with connect(service.client) as caller:
            caller.sendall(raw_request("/predict", {"pairs": [{"user": "u2", "item": "i2"}]}))
            service.wait_until_queued(1)
        service.wait_until_queued(0)
        service.runtime.released.set()
        assert held().status_code == 200
        assert (service.runtime.runs, metric(service.client, "ubert_cancelled_total")) == (1, 1)
        assert metric(service.client, "ubert_requests_total", route="/predict", status="499") == 1


@pytest.mark.parametrize("path", ["/predict", "/reviews"])
def test_a_caller_that_leaves_within_its_body_is_not_counted_as_a_bad_request(
    tiny: TinyBundle, store: MaintenanceStore, path: str
) -> None:
    with Service(tiny, store) as service:
        with connect(service.client) as caller:
            caller.sendall(raw_request(path, PREDICT, length=10_000))

        def answered(status: str) -> float:
            return metric(service.client, "ubert_requests_total", route=path, status=status)

        wait_until(lambda: answered("499") + answered("4xx") == 1)
        assert (answered("499"), answered("4xx")) == (1, 0)


def test_a_body_that_arrives_too_slowly_gets_408(tiny: TinyBundle, store: MaintenanceStore) -> None:
    with Service(tiny, store, request_timeout=0.2) as service, connect(service.client) as caller:
        caller.sendall(raw_request("/predict", PREDICT, length=10_000))
        status, body = answer_to(caller)
    assert status == 408
    assert b"urn:u-bert:problem:body-too-slow" in body


@pytest.mark.parametrize("codings", [["gzip, chunked"], ["gzip", "chunked"]], ids=["one header", "two headers"])
def test_a_transfer_coding_other_than_chunks_is_refused(
    tiny: TinyBundle, store: MaintenanceStore, codings: list[str]
) -> None:
    head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += "".join(f"Transfer-Encoding: {coding}\r\n" for coding in codings)
    with Service(tiny, store) as service, connect(service.client) as caller:
        caller.sendall(head.encode() + b"\r\n2\r\n{}\r\n0\r\n\r\n")
        status, body = answer_to(caller)
    assert (status, json.loads(body)["type"]) == (415, "urn:u-bert:problem:unsupported-media-type")
    assert "gzip" in json.loads(body)["detail"]


@pytest.mark.parametrize("path", ["/predict", "/reviews"])
def test_a_body_that_arrives_later_than_its_callers_deadline_gets_504(
    tiny: TinyBundle, store: MaintenanceStore, path: str
) -> None:
    head = raw_request(path, PREDICT, length=10_000).partition(b"\r\n\r\n")[0]
    with Service(tiny, store, request_timeout=TIMEOUT_S / 2) as service, connect(service.client) as caller:
        caller.sendall(head + b"\r\nX-Request-Timeout: 0.2\r\n\r\n")
        status, body = answer_to(caller)
    assert (status, json.loads(body)["type"]) == (504, "urn:u-bert:problem:deadline-passed")


def test_a_refusal_is_sent_before_the_body_and_leaves_the_connection_usable(
    tiny: TinyBundle, store: MaintenanceStore
) -> None:
    with Service(tiny, store, queue_requests=1) as service, connect(service.client) as caller:
        admitted = [service.hold(), service.send("/predict", PREDICT)]
        service.wait_until_queued(1)
        whole = raw_request("/predict", PREDICT)
        head, body = whole[: whole.index(b"{")], whole[whole.index(b"{") :]
        caller.sendall(head)
        assert answer_to(caller)[0] == 429
        service.runtime.released.set()
        assert [answer().status_code for answer in admitted] == [200, 200]
        caller.sendall(body + whole)
        assert answer_to(caller)[0] == 200


@pytest.fixture
def many_open_files() -> Iterator[None]:
    """Let this process, and those that it starts, open thousands of files: many systems allow 1,024 by default."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4_096), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def process(
    many_open_files: None, tiny: TinyBundle, filled_redis_store: MaintenanceStore, own_redis_url: str
) -> Iterator[ServeProcess]:
    options = ["--device", "cpu", "--threads", "1", "--queue-requests", str(QUEUE_REQUESTS), "--queue-wait-ms", "0"]
    options += ["--drain-seconds", "30"]  # draining ends earlier, with the last connection
    with ServeProcess(
        "--bundle", str(tiny.bundle.path), "--codec", "fp32", "--store", own_redis_url, *options
    ) as process:
        yield process


def send_until_asked_to_close(address: str, started: threading.Barrier, statuses: list[int]) -> None:
    """Repeat a request over one connection until an answer says ``Connection: close``."""
    connection = HTTPConnection(urlsplit(address).netloc, timeout=TIMEOUT_S)
    closing = False
    for number in range(100_000):
        if number == 3:
            started.wait(TIMEOUT_S)  # so all callers are sending when the signal arrives
        connection.request("POST", "/predict", json.dumps(PREDICT), {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read()
        statuses.append(response.status)
        if closing := response.headers.get("Connection") == "close":
            break
    connection.close()
    assert closing


def test_sigterm_loses_no_request_that_was_sent(process: ServeProcess) -> None:
    callers = 16
    started = threading.Barrier(callers + 1)
    statuses: list[int] = []
    with ThreadPoolExecutor(callers) as threads:
        sending = [
            threads.submit(send_until_asked_to_close, process.address, started, statuses) for _ in range(callers)
        ]
        started.wait(TIMEOUT_S)
        exit_status = process.terminate()
        for caller in sending:
            caller.result()  # a connection that ends without an answer raises here
    assert exit_status == 0
    assert set(statuses) == {200}


def test_every_one_of_a_thousand_open_connections_is_answered(process: ServeProcess) -> None:
    with ExitStack() as open_connections:
        callers = [open_connections.enter_context(connect(process.client)) for _ in range(1_000)]
        assert process.client.post("/predict", json=PREDICT).status_code == 200
        for caller in callers:
            caller.sendall(raw_request("/predict", PREDICT))
        statuses = [caller.recv(65536).split(b" ", 2)[1] for caller in callers]
    assert set(statuses) <= {b"200", b"429"}
    assert statuses.count(b"200") >= QUEUE_REQUESTS  # at least the first to arrive are admitted
