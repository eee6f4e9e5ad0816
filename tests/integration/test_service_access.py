"""API keys, allowed hosts, and TLS to the store, over real HTTP."""

import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from support.api_keys import write_keys
from support.app_settings import settings_for
from support.metrics import metric
from support.problems import problem_of
from support.running_app import serving, wait_until_ready
from support.tiny_bundle import Corpus, TinyBundle
from support.tls_redis import tls_redis
from support.waiting import wait_until
from ubert_model.errors import StoreUnavailableError
from ubert_model.states import MaintenanceStore, open_store
from ubert_service.access.keys import new_key

PREDICT = {"pairs": [{"user": "u0", "item": "i1"}]}
REVIEW = {"user": "u1", "item": "i1", "rating": 4, "text": "Stays in tune."}


@dataclass(frozen=True, kw_only=True)
class Guarded:
    """A service that requires keys; ``reader`` and ``writer`` are keys, listed in ``key_file``."""

    client: httpx.Client
    reader: str
    writer: str
    key_file: Path

    def status(self, method: str, path: str, key: str | None, body: object = None) -> int:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return self.client.request(method, path, json=body, headers=headers).status_code


@pytest.fixture
def guarded(tiny: TinyBundle, filled_store: MaintenanceStore, tmp_path: Path) -> Iterator[Guarded]:
    path = tmp_path / "keys.toml"
    keys = write_keys(path, page=["read"], job=["read", "write"])
    with serving(settings_for(tiny.bundle, api_keys=path), filled_store) as client:
        yield Guarded(client=client, reader=keys["page"], writer=keys["job"], key_file=path)


def test_reading_and_writing_each_require_a_key_with_that_scope(guarded: Guarded) -> None:
    assert guarded.status("POST", "/predict", None, PREDICT) == 401
    assert guarded.status("POST", "/predict", "wrong", PREDICT) == 401
    assert guarded.status("POST", "/predict", guarded.reader, PREDICT) == 200
    assert guarded.status("GET", "/users/u0", guarded.reader) == 200
    assert guarded.status("POST", "/reviews", guarded.reader, REVIEW) == 403
    assert guarded.status("POST", "/reviews", guarded.writer, REVIEW) == 201


def test_a_request_without_a_key_gets_a_problem_and_a_bearer_challenge(guarded: Guarded) -> None:
    refused = guarded.client.post("/predict", json=PREDICT)
    assert refused.headers["www-authenticate"] == "Bearer"
    assert problem_of(refused) == (401, "unauthenticated")
    assert refused.json()["request_id"] == refused.headers["x-request-id"]


def test_a_refused_request_counts_for_its_route(guarded: Guarded) -> None:
    for method, path in (("POST", "/predict"), ("GET", "/users/u0"), ("POST", "/no/such/address")):
        assert guarded.status(method, path, None) == 401
    for route in ("/predict", "/users/{user}", "unmatched"):
        assert metric(guarded.client, "ubert_requests_total", route=route, status="4xx") == 1


def test_health_metrics_and_openapi_need_no_key(guarded: Guarded) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
        assert guarded.status("GET", path, None) == 200


def test_a_request_without_a_key_is_refused_before_its_body_is_read(guarded: Guarded) -> None:
    address = (guarded.client.base_url.host, guarded.client.base_url.port or 0)
    with socket.create_connection(address, timeout=10.0) as caller:
        caller.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        assert caller.recv(65536).startswith(b"HTTP/1.1 401 ")


def test_the_log_contains_the_name_of_a_key_and_never_the_key(
    guarded: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    for key in (guarded.reader, guarded.reader + "x"):
        guarded.status("POST", "/predict", key, PREDICT)

    def callers() -> list[object]:
        lines = [record.args for record in caplog.records if record.name == "ubert_service.requests"]
        return [line["caller"] for line in lines if isinstance(line, dict)]

    wait_until(lambda: callers() == ["page", None])  # a request is logged after its answer
    assert guarded.reader not in caplog.text


def test_requests_are_counted_by_the_name_of_their_key(guarded: Guarded) -> None:
    for key in (guarded.reader, guarded.writer, guarded.reader, None, "wrong"):
        guarded.status("GET", "/users/u0", key)
    wait_until(lambda: metric(guarded.client, "ubert_caller_requests_total") == 3)
    assert metric(guarded.client, "ubert_caller_requests_total", caller="page") == 2


def test_keys_are_revoked_and_added_while_the_service_runs(guarded: Guarded) -> None:
    _, writer_table = guarded.key_file.read_text().split("[job]")
    added, table = new_key("added", ["read"])
    assert guarded.status("GET", "/version", added) == 401
    guarded.key_file.write_text(f"[job]{writer_table}{table}")
    wait_until(lambda: guarded.status("GET", "/version", guarded.reader) == 401)
    assert guarded.status("GET", "/version", added) == 200
    assert guarded.status("GET", "/version", guarded.writer) == 200


def test_a_missing_key_file_is_reported_and_its_keys_stay_in_force(guarded: Guarded) -> None:
    before = guarded.key_file.read_text()
    guarded.key_file.unlink()
    wait_until(lambda: "ubert_api_keys_outdated 1.0" in guarded.client.get("/metrics").text)
    assert guarded.status("POST", "/predict", guarded.reader, PREDICT) == 200
    assert guarded.status("POST", "/predict", "wrong", PREDICT) == 401
    assert guarded.status("POST", "/predict", None, PREDICT) == 401
    guarded.key_file.write_text(before)
    wait_until(lambda: "ubert_api_keys_outdated 0.0" in guarded.client.get("/metrics").text)


@pytest.fixture(scope="module")
def keyless(tiny: TinyBundle, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A service without keys, on loopback, that also allows the host Ratings.example."""
    with closing(open_store(f"lmdb:{tmp_path_factory.mktemp('keyless')}")) as store:
        corpus.write(store, tiny.bundle)
        with serving(settings_for(tiny.bundle, allowed_hosts=["Ratings.example"]), store) as client:
            yield client


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example"]
)
def test_a_host_that_is_not_allowed_gets_421_for_reads_and_writes(keyless: httpx.Client, host: str) -> None:
    """As in DNS rebinding, where the host name of a hostile web page resolves to this machine."""
    for request in (
        keyless.build_request("POST", "/reviews", json=REVIEW, headers={"Host": host}),
        keyless.build_request("GET", "/users/u0", headers={"Host": host}),
        keyless.build_request("DELETE", "/reviews/any", params={"user": "u0", "item": "i0"}, headers={"Host": host}),
    ):
        refused = keyless.send(request)
        assert problem_of(refused) == (421, "misdirected")
        assert repr(host) in refused.json()["detail"]
    assert keyless.get("/readyz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8000",
        "u-bert.localhost",
        "127.0.0.1:80",
        "[::1]:8000",
        "10.0.0.7",
        "ratings.example:81",
        "",
    ],
)
def test_localhost_ip_addresses_and_allowed_hosts_are_served_without_keys(keyless: httpx.Client, host: str) -> None:
    assert keyless.post("/predict", json=PREDICT, headers={"Host": host}).status_code == 200


def test_any_host_is_served_with_a_key(guarded: Guarded) -> None:
    headers = {"Host": "ratings.example", "Authorization": f"Bearer {guarded.reader}"}
    assert guarded.client.post("/predict", json=PREDICT, headers=headers).status_code == 200


def test_a_tls_store_is_reached_only_over_tls_with_a_trusted_certificate(tiny: TinyBundle, corpus: Corpus) -> None:
    with tls_redis() as redis:
        trusted = f"rediss://127.0.0.1:{redis.port}/0?ssl_ca_certs={redis.authority}"
        store = open_store(trusted)
        corpus.write(store, tiny.bundle)
        with serving(settings_for(tiny.bundle, store=trusted), store) as client:
            wait_until_ready(client)
            (prediction,) = client.post("/predict", json=PREDICT).raise_for_status().json()["predictions"]
        store.close()
        assert prediction["basis"] == "full"

        for url in (f"rediss://127.0.0.1:{redis.port}/0", f"redis://127.0.0.1:{redis.port}/0"):
            untrusted = open_store(url)
            with pytest.raises(StoreUnavailableError):
                untrusted.namespaces()
            untrusted.close()
