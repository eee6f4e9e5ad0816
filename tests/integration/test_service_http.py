"""The routes over real HTTP: what they answer, and that every error is a problem with a stable type."""

import asyncio
import gzip
import json
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import httpx
import jsonschema
import numpy as np
import pytest
from fastapi import FastAPI
from numpy.typing import NDArray

from support.app_settings import settings_for
from support.running_app import running, wait_until_ready
from support.tiny_bundle import Corpus, TinyBundle, torch_rating
from support.waiting import wait_until
from ubert_model.errors import DeviceUnavailableError, StoreUnavailableError
from ubert_model.states import MaintenanceStore, StateStore, open_store
from ubert_service.app import create_app
from ubert_service.routes import predict, rank
from ubert_service.routes.rating_answers import prediction_fields
from ubert_service.schemas import MAX_CANDIDATES, MAX_EXCLUDED, MAX_PAIRS
from ubert_service.scoring.assembly import ScorerBatch
from ubert_service.scoring.runtime import ActiveDevice, ScoringRuntime
from ubert_service.serving import device_check
from ubert_service.serving.opened import OpenedBundle
from ubert_service.serving.served import ServedBundle
from ubert_service.settings import Settings

MAX_BODY_BYTES = 200_000
UNKNOWN_PAIR = {"pairs": [{"user": "nobody", "item": "nothing"}]}


def small_bodies(tiny: TinyBundle, **options: Any) -> Settings:
    return settings_for(tiny.bundle, **{"max_body_bytes": MAX_BODY_BYTES, **options})


@pytest.fixture(scope="module")
def served(tiny: TinyBundle, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedBundle]:
    """Over a store that no test writes to."""
    store = open_store(f"lmdb:{tmp_path_factory.mktemp('served')}")
    corpus.write(store, tiny.bundle)
    served = ServedBundle(OpenedBundle.open(small_bodies(tiny)), store)
    yield served
    store.close()


@pytest.fixture(scope="module")
def client(tiny: TinyBundle, served: ServedBundle) -> Iterator[httpx.Client]:
    with running(create_app(small_bodies(tiny), served.opened, served.store)) as client:
        yield client


class FailingRuntime:
    """Fails as no real runtime can be made to."""

    device: ActiveDevice = "cpu"

    def score(self, batch: ScorerBatch) -> NDArray[np.float32]:
        raise RuntimeError("/secret/path: a bug")


def assert_problem(response: httpx.Response, status: int, name: str) -> dict[str, Any]:
    problem: dict[str, Any] = response.json()
    assert (response.status_code, problem["status"]) == (status, status), problem
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["type"] == f"urn:u-bert:problem:{name}"
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == response.headers["x-request-id"]
    assert "Traceback" not in response.text
    return problem


def test_predict_answers_each_pair_in_the_order_of_the_request(
    client: httpx.Client, tiny: TinyBundle, corpus: Corpus
) -> None:
    pairs = [{"user": user, "item": item} for user in ("u3", "u0", "nobody") for item in ("i5", "i2", "i5")]

    answer = client.post("/predict", json={"pairs": pairs}).raise_for_status().json()

    assert answer["bundle"] == tiny.bundle.manifest.bundle_id
    assert [{"user": one["user"], "item": one["item"]} for one in answer["predictions"]] == pairs
    for prediction in answer["predictions"]:
        expected = torch_rating(tiny, corpus, prediction["user"], prediction["item"])
        assert prediction["rating"] == pytest.approx(expected, abs=1e-4)


def test_rank_orders_candidates_by_their_predicted_ratings(client: httpx.Client) -> None:
    candidates = [f"i{number}" for number in (9, 3, 11, 3, 0, 21, 7, 20, 9)]
    distinct = list(dict.fromkeys(candidates))

    answer = client.post("/rank", json={"user": "u1", "candidates": candidates}).raise_for_status().json()
    pairs = [{"user": "u1", "item": item} for item in distinct]
    predicted = client.post("/predict", json={"pairs": pairs}).raise_for_status().json()["predictions"]

    rating_of = {one["item"]: one["rating"] for one in predicted}
    assert answer["user"] == "u1"
    assert [one["item"] for one in answer["items"]] == sorted(distinct, key=lambda item: -rating_of[item])
    for one in answer["items"]:
        assert one["rating"] == pytest.approx(rating_of[one["item"]], abs=1e-5)
    # Neither i20 nor i21 has reviews: their ratings are equal, so they keep the order of the request.
    tied = [one["item"] for one in answer["items"] if one["item"] in {"i20", "i21"}]
    assert tied == ["i21", "i20"]


def runs_in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize(
    ("path", "question"),
    [
        ("/rank", {"user": "u0", "candidates": [f"c{number}" for number in range(200)]}),
        ("/predict", {"pairs": [{"user": "u0", "item": f"c{number}"} for number in range(200)]}),
    ],
)
def test_many_predictions_are_serialized_outside_the_event_loop(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, path: str, question: dict[str, Any]
) -> None:
    """Ten thousand took half a second, in which no other request was answered."""
    in_loop: list[bool] = []

    def observed(*given: Any) -> dict[str, Any]:
        in_loop.append(runs_in_event_loop())
        return prediction_fields(*given)

    for route in (predict, rank):
        monkeypatch.setattr(route, "prediction_fields", observed)
    client.post(path, json=question).raise_for_status()
    assert in_loop == [False] * 200


def test_top_k_is_the_beginning_of_the_whole_ranking(client: httpx.Client) -> None:
    question = {"user": "u1", "candidates": [f"i{number}" for number in range(12)]}
    whole = client.post("/rank", json=question).raise_for_status().json()["items"]
    for top_k in (1, 5, 12, 100):
        best = client.post("/rank", json={**question, "top_k": top_k}).raise_for_status().json()["items"]
        assert best == whole[:top_k]


def pairs_of(user: Any, item: Any = "i0", count: int = 1) -> dict[str, Any]:
    return {"pairs": [{"user": user, "item": item}] * count}


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("/predict", {}, "/pairs"),
        ("/predict", {"pairs": []}, "/pairs"),
        ("/predict", pairs_of("u", count=MAX_PAIRS + 1), "/pairs"),
        ("/predict", pairs_of(""), "/pairs/0/user"),
        ("/predict", pairs_of(5), "/pairs/0/user"),
        ("/predict", pairs_of("u", None), "/pairs/0/item"),
        ("/predict", pairs_of("ü" * 129), "/pairs/0/user"),
        ("/predict", {**pairs_of("u"), "a/b~c": 1}, "/a~1b~0c"),
        ("/predict", {"pairs": [{"user": "u", "item": "i", "rating": 5}]}, "/pairs/0/rating"),
        ("/predict", ["u", "i"], ""),
        ("/rank", {"user": "u", "candidates": []}, "/candidates"),
        ("/rank", {"user": "u", "candidates": ["i"] * (MAX_CANDIDATES + 1)}, "/candidates"),
        ("/rank", {"user": "u", "candidates": ["i"], "top_k": 0}, "/top_k"),
        ("/rank", {"user": "u", "candidates": ["i"], "top_k": "1"}, "/top_k"),
        ("/rank", {"candidates": ["i"]}, "/user"),
        ("/rank", {"user": "u", "candidates": ["i"], "k": 1}, "/k"),
        ("/explain", {"user": "u", "item": "i", "k": 1}, "/k"),
        ("/predict", {**pairs_of("u"), "as_of": "yesterday"}, "/as_of"),
        ("/predict", {**pairs_of("u"), "as_of": -1}, "/as_of"),
        ("/predict", {**pairs_of("u"), "exclude_review_ids": ["r", ""]}, "/exclude_review_ids/1"),
        ("/predict", {**pairs_of("u"), "exclude_review_ids": ["r"] * (MAX_EXCLUDED + 1)}, "/exclude_review_ids"),
        ("/reviews", {"user": "u", "item": "i", "rating": 5, "text": "A board.", "stars": 5}, "/stars"),
        # Browsers and most libraries would ask to remove it at `/`.
        ("/reviews", {"user": "u", "item": "i", "rating": 5, "text": "A board.", "review_id": ".."}, "/review_id"),
    ],
)
def test_an_invalid_request_gets_a_pointer_to_the_error(
    client: httpx.Client, path: str, body: Any, pointer: str
) -> None:
    problem = assert_problem(client.post(path, json=body), 422, "invalid-request")
    assert problem["errors"][0]["pointer"] == pointer


SECRET = "A review. " * 20


@pytest.mark.parametrize(
    ("method", "path", "body", "detail"),
    [
        ("POST", "/reviews", {"rating": "five"}, '/rating: Input should be a valid number; it is "five"'),
        ("POST", "/reviews", {"rating": SECRET}, "/rating: Input should be a valid number; it is a string"),
        ("POST", "/reviews", {"rating": None}, "/rating: Input should be a valid number; it is null"),
        ("POST", "/reviews", {"text": [SECRET]}, "/text: Input should be a valid string; it is a list"),
        ("POST", "/reviews", {"texts": SECRET}, "/texts: Extra inputs are not permitted"),
        (
            "POST",
            "/reviews",
            {"timestamp": "2026-11-30T10:00:00Z"},
            '/timestamp: send Unix seconds, such as 1796061518, not "2026-11-30T10:00:00Z"',
        ),
        (
            "POST",
            "/reviews",
            {"timestamp": 1796061518000},
            "/timestamp: send Unix seconds, such as 1796061518, not 1796061518000",
        ),
        (
            "POST",
            "/explain",
            {"as_of": "2012-01-01"},
            '/as_of: send Unix seconds, such as 1796061518, not "2012-01-01"',
        ),
        (
            "POST",
            "/explain",
            {"user_texts": [SECRET]},
            '/user_texts/0: send an object such as {"text": …}, not a string',
        ),
        ("POST", "/explain", {"user_texts": SECRET}, "/user_texts: Input should be a valid list; it is a string"),
        ("PUT", "/candidate-sets/home", ["i0"], 'the body: send an object such as {"items": …}, not a list'),
        ("GET", "/users?limit=many", None, "/query/limit: Input should be a valid integer, unable to parse"),
        ("GET", "/users?q=A10", None, "/query/q: unknown; known here: prefix, limit, cursor"),
        ("GET", "/users/u0?limt=3", None, "/query/limt: unknown; known here: limit, cursor"),
        ("GET", "/candidate-sets?limit=3", None, "/query/limit: unknown; known here: none"),
        ("POST", "/explain?explain=true", {}, "/query/explain: unknown; known here: none"),
    ],
)
def test_a_refusal_says_what_came_and_what_to_send_but_quotes_no_text(
    client: httpx.Client, method: str, path: str, body: Any, detail: str
) -> None:
    pair: dict[str, Any] = {"user": "nobody", "item": "nothing"}
    whole = {"/reviews": {**pair, "rating": 5, "text": ""}, "/explain": pair}.get(path.partition("?")[0])
    refused = client.request(method, path, json={**whole, **body} if whole else body)
    problem = assert_problem(refused, 422, "invalid-request")
    assert problem["detail"].startswith(detail)
    assert SECRET not in refused.text


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_monitors_may_add_parameters(client: httpx.Client, path: str) -> None:
    assert client.get(path, params={"t": 1}).status_code == 200


@pytest.mark.parametrize("surrounding", [dict, lambda members: {"pairs": [members]}])
def test_many_unknown_members_are_reported_as_one_error(
    client: httpx.Client, surrounding: Callable[[Any], Any]
) -> None:
    body = surrounding({f"member {number}": number for number in range(10_000)})
    problem = assert_problem(client.post("/predict", json=body), 422, "invalid-request")
    assert len(problem["errors"]) == 1
    assert "10000 members are too many" in problem["errors"][0]["message"]


def test_a_long_name_of_an_unknown_member_is_not_sent_back_in_full(client: httpx.Client) -> None:
    refused = client.post("/predict", json={**UNKNOWN_PAIR, "x" * 100_000: 1})
    assert_problem(refused, 422, "invalid-request")
    assert len(refused.content) < 2_000


def test_many_errors_are_all_counted_and_the_first_20_are_listed(client: httpx.Client) -> None:
    problem = assert_problem(client.post("/predict", json=pairs_of("", count=50)), 422, "invalid-request")
    assert problem["detail"] == "/pairs/0/user: String should have at least 1 character (and 49 more)"
    assert [error["pointer"] for error in problem["errors"]] == [f"/pairs/{number}/user" for number in range(20)]


@pytest.mark.parametrize("escaped", [r'"\ud800"', r'"u\ud800"'])
def test_a_lone_surrogate_is_refused_in_values_and_in_names(client: httpx.Client, escaped: str) -> None:
    headers = {"content-type": "application/json"}
    as_value = f'{{"pairs": [{{"user": {escaped}, "item": "i"}}]}}'
    as_name = f'{{"pairs": [{{"user": "u", "item": "i"}}], {escaped}: 1}}'
    for body in (as_value, as_name):
        assert_problem(client.post("/predict", content=body, headers=headers), 422, "invalid-request")


def test_identifiers_of_any_script_up_to_the_limit_are_served(client: httpx.Client) -> None:
    for user in ("ü" * 128, "用户\u0000\n:{}%", "a" * 256):
        client.post("/predict", json=pairs_of(user)).raise_for_status()


@pytest.mark.parametrize(
    ("body", "content_type", "status", "name"),
    [
        (b"[" * 100_000, "application/json", 413, "body-too-large"),
        (b"", "application/json", 422, "invalid-request"),
        (b"{}", "text/plain", 415, "unsupported-media-type"),
        (b"," * 100_000, "text/plain", 415, "unsupported-media-type"),
        (b"{}", "", 415, "unsupported-media-type"),
        (b" " * (MAX_BODY_BYTES + 1), "application/json", 413, "body-too-large"),
    ],
)
def test_a_body_of_a_wrong_size_or_type_is_refused(
    client: httpx.Client, body: bytes, content_type: str, status: int, name: str
) -> None:
    headers = {"content-type": content_type} if content_type else {}
    assert_problem(client.post("/predict", content=body, headers=headers), status, name)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"{", "character 1"),
        (b"\xff", "not valid utf-8 at byte 0"),
        (b'"\xff', "not valid utf-8 at byte 1"),
        (b"[" + b"9" * 5_000 + b"]", "too many digits"),
        (b'{"pairs": oops}', "character 10"),
    ],
)
def test_a_malformed_body_is_refused_with_the_reason(client: httpx.Client, body: bytes, detail: str) -> None:
    response = client.post("/predict", content=body, headers={"content-type": "application/json"})
    assert detail in assert_problem(response, 400, "malformed-body")["detail"]


@pytest.mark.parametrize("path", ["/predict", "/reviews"])
def test_a_deeply_nested_body_is_refused(client: httpx.Client, path: str) -> None:
    body = b"[" * 10_000 + b"]" * 10_000
    response = client.post(path, content=body, headers={"content-type": "application/json"})
    if sys.version_info < (3, 14):
        assert "nested too deeply" in assert_problem(response, 400, "malformed-body")["detail"]
    else:  # parses any depth within the bound on values
        assert_problem(response, 422, "invalid-request")


def test_a_compressed_body_is_refused_and_the_problem_names_its_encoding(client: httpx.Client) -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    response = client.post("/predict", content=gzip.compress(b"{}"), headers=headers)
    assert_problem(response, 415, "unsupported-media-type")
    assert response.headers["accept-encoding"] == "identity"
    assert "gzip" in response.json()["detail"]
    plain = {**headers, "content-encoding": "identity"}
    assert client.post("/predict", json=pairs_of("u0"), headers=plain).status_code == 200


def test_an_invalid_header_is_reported_once(client: httpx.Client) -> None:
    response = client.post("/predict", json=pairs_of("u0"), headers={"X-Request-Timeout": "soon"})
    assert [one["pointer"] for one in response.json()["errors"]] == ["/header/X-Request-Timeout"]
    assert response.json()["detail"].endswith('unable to parse string as a number; it is "soon"')


def test_a_trailing_slash_is_not_found_and_not_redirected(client: httpx.Client) -> None:
    """A redirect would name the scheme of the last hop: behind a TLS proxy, it would send the key in the clear."""
    for response in (client.post("/predict/", json=pairs_of("u0")), client.get("/version/")):
        assert_problem(response, 404, "not-found")
        assert "location" not in response.headers


@pytest.mark.parametrize(
    "path",
    ["/", "/console/main.js", "/healthz", "/readyz", "/metrics", "/version", "/openapi.json", "/about", "/users/u0"],
)
def test_head_is_answered_as_get_is_but_without_the_body(client: httpx.Client, path: str) -> None:
    get, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    if path != "/metrics":  # they have counted one more request
        assert head.headers["content-length"] == get.headers["content-length"]


def test_a_chunked_body_is_refused_once_it_exceeds_the_limit(client: httpx.Client) -> None:
    chunks = (b" " * 10_000 for _ in range(MAX_BODY_BYTES // 10_000 + 1))
    response = client.post("/predict", content=chunks, headers={"content-type": "application/json"})
    assert_problem(response, 413, "body-too-large")


def test_unknown_paths_and_methods_are_problems(client: httpx.Client) -> None:
    assert_problem(client.get("/nothing"), 404, "not-found")
    for method, path, allowed in (
        ("GET", "/predict", "POST"),
        ("HEAD", "/predict", "POST"),
        ("OPTIONS", "/users", "GET, HEAD"),
        ("POST", "/candidate-sets/summer", "GET, HEAD, PUT, DELETE"),
        ("PATCH", "/reviews/r/1", "DELETE"),
    ):
        response = client.request(method, path)
        assert response.headers["allow"] == allowed
        if method != "HEAD":
            assert_problem(response, 405, "method-not-allowed")


def test_a_damaged_state_is_a_problem_that_names_the_review(
    tiny: TinyBundle, corpus: Corpus, filled_store: MaintenanceStore
) -> None:
    served = ServedBundle(OpenedBundle.open(small_bodies(tiny)), filled_store)
    read = next(entry for entry in corpus.of_user("u0") if entry.rows)
    filled_store.put(served.namespace.version, [(read, b"UBRS and nothing more")])
    with running(create_app(small_bodies(tiny), served.opened, served.store)) as client:
        response = client.post("/rank", json={"user": "u0", "candidates": ["i20", "i21"]})
    problem = assert_problem(response, 500, "state-corrupt")
    assert read.review_id in problem["detail"]


def test_an_unexpected_error_discloses_only_the_request_id(
    tiny: TinyBundle, served: ServedBundle, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(small_bodies(tiny), replace(served.opened, runtime=FailingRuntime()), served.store)
    candidates = [f"i{number}" for number in range(12)]
    with running(app) as client:
        response = client.post(
            "/rank", json={"user": "u0", "candidates": candidates}, headers={"X-Request-ID": "order-17"}
        )
    problem = assert_problem(response, 500, "internal-error")
    assert problem["request_id"] == "order-17"
    assert "secret" not in response.text
    assert "order-17" in caplog.text
    assert "/secret/path" in caplog.text


def test_a_request_id_that_could_forge_a_log_line_is_replaced(client: httpx.Client) -> None:
    forged = "x y"
    assert client.get("/healthz", headers={"X-Request-ID": forged}).headers["x-request-id"] != forged


def test_health_is_answered_while_every_scoring_thread_is_busy(tiny: TinyBundle, served: ServedBundle) -> None:
    entered, release = threading.Event(), threading.Event()

    class StuckRuntime(FailingRuntime):
        def score(self, batch: ScorerBatch) -> NDArray[np.float32]:
            entered.set()
            assert release.wait(timeout=60)
            return np.zeros(len(batch.item), dtype=np.float32)

    question = {"user": "u0", "candidates": [f"i{number}" for number in range(12)]}
    statuses: list[int] = []
    stuck = replace(served.opened, runtime=StuckRuntime())
    with running(create_app(small_bodies(tiny, concurrency=1), stuck, served.store)) as client:
        callers = [
            threading.Thread(target=lambda: statuses.append(client.post("/rank", json=question).status_code))
            for _ in range(3)
        ]
        for caller in callers:
            caller.start()
        assert entered.wait(timeout=60)
        try:
            assert client.get("/healthz", timeout=30).status_code == 200
            assert client.get("/readyz", timeout=30).status_code == 200
            assert not statuses
        finally:
            release.set()
            for caller in callers:
                caller.join()
    assert statuses == [200, 200, 200]


def test_repeated_readiness_checks_block_few_threads_on_a_store_that_hangs(
    tiny: TinyBundle, served: ServedBundle
) -> None:
    hangs, release = threading.Event(), threading.Event()
    calls: list[str] = []

    class HangingStore:
        def __getattr__(self, name: str) -> Any:
            if hangs.is_set():
                return lambda *_: self._wait(name)
            return getattr(served.store, name)

        def _wait(self, name: str) -> None:
            calls.append(name)
            assert release.wait(timeout=60)
            raise StoreUnavailableError("it had hung")

    store = cast("StateStore", HangingStore())
    with running(create_app(small_bodies(tiny), served.opened, store)) as client:
        wait_until_ready(client)
        hangs.set()
        try:
            for _ in range(8):
                client.get("/readyz", timeout=30)
            checks = [name for name in calls if name in {"namespaces", "ping"}]
            assert 1 <= len(checks) <= 4
        finally:
            release.set()
            hangs.clear()
        wait_until_ready(client)


class FailingGpu:
    """Computes on the CPU; while ``lost`` it fails as a GPU does that has left the bus, and while not ``answers`` it
    hangs.
    """

    device: ActiveDevice = "cuda"

    def __init__(self, runtime: ScoringRuntime) -> None:
        self._runtime = runtime
        self.lost = False
        self.answers = threading.Event()
        self.answers.set()
        self.hanging = 0

    def score(self, batch: ScorerBatch) -> NDArray[np.float32]:
        if not self.answers.is_set():
            self.hanging += 1
            assert self.answers.wait(timeout=60)
        if self.lost:
            raise DeviceUnavailableError("device cuda failed while computing: the GPU is lost")
        return self._runtime.score(batch)


@pytest.fixture
def gpu(served: ServedBundle, monkeypatch: pytest.MonkeyPatch) -> FailingGpu:
    """Checked often, and soon found to hang."""
    monkeypatch.setattr(device_check, "PAUSE_S", 0.01)
    monkeypatch.setattr(device_check, "LONGEST_CALL_S", 0.5)
    return FailingGpu(served.opened.runtime)


@pytest.fixture
def app_on_gpu(tiny: TinyBundle, served: ServedBundle, gpu: FailingGpu) -> FastAPI:
    return create_app(small_bodies(tiny), replace(served.opened, runtime=gpu), served.store)


def wait_for_device_failure(client: httpx.Client, message: str) -> None:
    """Ask ``/readyz``, which must always answer, until the device fails with this message, and nothing else does."""

    def found() -> list[str]:
        return [reason["found"] for reason in client.get("/readyz", timeout=30).json().get("reasons", ())]

    wait_until(lambda: any(message in reason for reason in found()))
    problem = assert_problem(client.get("/readyz"), 503, "not-ready")
    assert [reason["check"] for reason in problem["reasons"]] == ["device"]


def test_readiness_fails_while_the_gpu_does_not_compute(app_on_gpu: FastAPI, gpu: FailingGpu) -> None:
    with running(app_on_gpu) as client:
        wait_until_ready(client)
        gpu.lost = True
        wait_for_device_failure(client, "the GPU is lost")
        gpu.lost = False
        wait_until_ready(client)


def test_readiness_fails_while_the_gpu_hangs_in_the_one_call_that_checks_it(
    app_on_gpu: FastAPI, gpu: FailingGpu
) -> None:
    with running(app_on_gpu) as client:
        wait_until_ready(client)
        gpu.answers.clear()
        wait_for_device_failure(client, "has not answered")
        assert gpu.hanging == 1
        gpu.answers.set()
        wait_until_ready(client)


def test_readiness_fails_before_the_gpu_has_computed(app_on_gpu: FastAPI, gpu: FailingGpu) -> None:
    gpu.answers.clear()
    with running(app_on_gpu) as client:
        wait_for_device_failure(client, "has not")
        gpu.answers.set()
        wait_until_ready(client)


def test_a_gpu_that_hangs_does_not_delay_the_end_of_the_service(app_on_gpu: FastAPI, gpu: FailingGpu) -> None:
    with running(app_on_gpu) as client:
        gpu.answers.clear()
        wait_for_device_failure(client, "has not answered")
    assert gpu.hanging == 1
    gpu.answers.set()


def test_readiness_does_not_compute_on_a_cpu(tiny: TinyBundle, served: ServedBundle) -> None:
    failing = replace(served.opened, runtime=FailingRuntime())
    with running(create_app(small_bodies(tiny), failing, served.store)) as client:
        wait_until_ready(client)


def test_without_states_of_the_bundle_the_service_is_not_ready_and_names_the_command(
    tiny: TinyBundle, corpus: Corpus, lmdb_store: MaintenanceStore
) -> None:
    corpus.write(lmdb_store, tiny.bundle, codec="fp16")  # another codec's states do not count
    served = ServedBundle(OpenedBundle.open(small_bodies(tiny)), lmdb_store)
    with running(create_app(small_bodies(tiny), served.opened, served.store)) as client:
        problem = assert_problem(client.get("/readyz"), 503, "not-ready")
        (reason,) = problem["reasons"]
        assert reason["check"] == "states"
        command = f"ubert precompute --reviews DIR --bundle {tiny.bundle.path} --store URL --codec fp32"
        assert reason["remedy"] == f"use --codec fp16, or {command}"
        assert reason["found"].endswith("under codec fp32; it has them under fp16")
        for path, body in (("/predict", pairs_of("u1", "i4")), ("/rank", {"user": "u1", "candidates": ["i4"]})):
            refused = assert_problem(client.post(path, json=body), 503, "not-ready")
            assert "under fp16: use --codec fp16, or `ubert precompute` the reviews" in refused["detail"]
        corpus.write(lmdb_store, tiny.bundle)
        assert wait_until_ready(client).json() == {"status": "ready", "bundle": tiny.bundle.manifest.bundle_id}
        assert client.post("/predict", json=pairs_of("u1", "i4")).status_code == 200


def test_version_names_the_bundle_the_states_the_codec_and_the_device(
    client: httpx.Client, served: ServedBundle
) -> None:
    version = client.get("/version").raise_for_status().json()
    assert version["bundle"] == served.bundle_id
    assert version["states"] == served.namespace.version
    assert (version["codec"], version["device"]) == ("fp32", "cpu")


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from (value for name, value in node.items() if name == "$ref")
        node = list(node.values())
    if isinstance(node, list):
        for one in node:
            yield from references(one)


def test_the_openapi_description_is_made_before_the_first_caller_asks_for_it(
    tiny: TinyBundle, served: ServedBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile the event loop would answer nobody for a third of a second."""

    def made_late(**_: Any) -> None:
        pytest.fail("it was made for a caller")

    with running(create_app(small_bodies(tiny), served.opened, served.store)) as client:
        monkeypatch.setattr("ubert_service.app.get_openapi", made_late)
        client.get("/openapi.json").raise_for_status()


def test_the_openapi_description_is_complete_and_its_examples_are_valid(client: httpx.Client) -> None:
    description = client.get("/openapi.json").raise_for_status().json()
    schemas = description["components"]["schemas"]
    assert {name.rsplit("/", 1)[1] for name in references(description)} <= set(schemas)
    for path in ("/predict", "/rank", "/reviews"):
        operation = description["paths"][path]["post"]
        assert operation["description"]
        for status in ("400", "413", "415", "422", "500", "503"):
            assert list(operation["responses"][status]["content"]) == ["application/problem+json"]
    for name in ("PredictRequest", "RankRequest", "ReviewRequest"):
        (example,) = schemas[name]["examples"]
        jsonschema.validate(example, {**description, **schemas[name]})
    for name in ("PredictRequest", "RankRequest"):  # not ReviewRequest, as other tests read this store
        (example,) = schemas[name]["examples"]
        client.post(f"/{name.removesuffix('Request').lower()}", json=example).raise_for_status()


def test_answers_and_problems_match_their_schemas(client: httpx.Client) -> None:
    description = client.get("/openapi.json").raise_for_status().json()
    schemas = description["components"]["schemas"]
    answers = {
        "PredictAnswer": client.post("/predict", json=UNKNOWN_PAIR),
        "RankAnswer": client.post("/rank", json={"user": "u0", "candidates": ["i1"]}),
        "Problem": client.post("/predict", json={}),
        "Version": client.get("/version"),
        "ReviewList": client.get("/items/i3", params={"limit": 2}),
    }
    for name, answer in answers.items():
        jsonschema.validate(answer.json(), {**description, **schemas[name]})


@pytest.mark.parametrize(
    ("path", "cache_control"), [("/users/u0", "no-store"), ("/users/nobody?cursor=x", "no-store"), ("/", "no-cache")]
)
def test_answers_must_not_be_cached_and_the_page_must_be_revalidated(
    client: httpx.Client, path: str, cache_control: str
) -> None:
    assert client.get(path).headers["Cache-Control"] == cache_control


def test_docs_and_redoc_are_not_served(client: httpx.Client) -> None:
    """They would load scripts of third parties."""
    for path in ("/docs", "/redoc"):
        assert_problem(client.get(path), 404, "not-found")


def test_answers_are_json_without_nan(client: httpx.Client) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads(client.post("/predict", json=UNKNOWN_PAIR).text, parse_constant=refuse)
