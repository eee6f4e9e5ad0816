"""API keys over HTTP, and a store behind TLS."""

import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from support.app_settings import settings_for
from support.running_app import serving, wait_until_ready
from support.tiny_bundle import Corpus, TinyBundle
from support.tls_redis import tls_redis
from support.waiting import wait_until
from ubert_model.errors import StoreUnavailableError
from ubert_model.states import StateStore, open_store
from ubert_service.access.keys import new_key

PREDICT = {"pairs": [{"user": "u0", "item": "i1"}]}
REVIEW = {"user": "u1", "item": "i1", "rating": 4, "text": "Stays in tune."}


@dataclass(frozen=True, kw_only=True)
class Guarded:
    """A service that asks for keys, and a key of each kind."""

    client: httpx.Client
    reader: str
    writer: str
    path: Path

    def status(self, method: str, path: str, key: str | None, body: object = None) -> int:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return self.client.request(method, path, json=body, headers=headers).status_code


@pytest.fixture
def guarded(tiny: TinyBundle, corpus: Corpus, lmdb_store: StateStore, tmp_path: Path) -> Iterator[Guarded]:
    corpus.write(lmdb_store, tiny.bundle)
    (reader, reader_table), (writer, writer_table) = new_key("page", ["read"]), new_key("job", ["read", "write"])
    path = tmp_path / "keys.toml"
    path.write_text(reader_table + writer_table)
    with serving(settings_for(tiny.bundle, api_keys=path), lmdb_store) as client:
        yield Guarded(client=client, reader=reader, writer=writer, path=path)


def test_reading_and_writing_need_their_own_keys(guarded: Guarded) -> None:
    assert guarded.status("POST", "/predict", None, PREDICT) == 401
    assert guarded.status("POST", "/predict", "wrong", PREDICT) == 401
    assert guarded.status("POST", "/predict", guarded.reader, PREDICT) == 200
    assert guarded.status("GET", "/users/u0", guarded.reader) == 200
    assert guarded.status("POST", "/reviews", guarded.reader, REVIEW) == 403
    assert guarded.status("POST", "/reviews", guarded.writer, REVIEW) == 201


def test_a_refusal_is_a_problem_that_names_the_scheme(guarded: Guarded) -> None:
    refused = guarded.client.post("/predict", json=PREDICT)
    assert refused.headers["www-authenticate"] == "Bearer"
    assert refused.json()["type"] == "urn:u-bert:problem:unauthenticated"
    assert refused.json()["request_id"] == refused.headers["x-request-id"]


def test_health_and_metrics_need_no_key(guarded: Guarded) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
        assert guarded.status("GET", path, None) == 200


def test_whoever_has_no_key_cannot_make_the_service_read_a_body(guarded: Guarded) -> None:
    address = (guarded.client.base_url.host, guarded.client.base_url.port or 0)
    with socket.create_connection(address, timeout=10.0) as caller:
        caller.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        assert caller.recv(65536).startswith(b"HTTP/1.1 401 ")


def test_the_log_names_the_key_and_never_shows_it(guarded: Guarded, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    for key in (guarded.reader, guarded.reader + "x"):
        guarded.status("POST", "/predict", key, PREDICT)

    def callers() -> list[object]:
        lines = [record.args for record in caplog.records if record.name == "ubert_service.requests"]
        return [line["caller"] for line in lines if isinstance(line, dict)]

    wait_until(lambda: callers() == ["page", None])  # a request has its line after its answer
    assert guarded.reader not in caplog.text


def test_a_key_is_revoked_and_another_given_while_the_service_runs(guarded: Guarded) -> None:
    _, writer_table = guarded.path.read_text().split("[job]")
    newcomer, table = new_key("newcomer", ["read"])
    assert guarded.status("GET", "/version", newcomer) == 401
    guarded.path.write_text(f"[job]{writer_table}{table}")
    wait_until(lambda: guarded.status("GET", "/version", guarded.reader) == 401)
    assert guarded.status("GET", "/version", newcomer) == 200
    assert guarded.status("GET", "/version", guarded.writer) == 200


def test_the_metrics_tell_of_a_file_of_keys_that_cannot_be_used_until_it_can(guarded: Guarded) -> None:
    before = guarded.path.read_text()
    guarded.path.unlink()
    wait_until(lambda: "ubert_api_keys_outdated 1.0" in guarded.client.get("/metrics").text)
    assert guarded.status("POST", "/predict", guarded.reader, PREDICT) == 200
    assert guarded.status("POST", "/predict", "wrong", PREDICT) == 401
    assert guarded.status("POST", "/predict", None, PREDICT) == 401
    guarded.path.write_text(before)
    wait_until(lambda: "ubert_api_keys_outdated 0.0" in guarded.client.get("/metrics").text)


@pytest.fixture(scope="module")
def keyless(tiny: TinyBundle, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A service without keys on loopback, which goes by one name more."""
    with closing(open_store(f"lmdb:{tmp_path_factory.mktemp('keyless')}")) as store:
        corpus.write(store, tiny.bundle)
        with serving(settings_for(tiny.bundle, allowed_hosts=["Ratings.example"]), store) as client:
            yield client


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example"]
)
def test_a_page_whose_name_was_pointed_at_this_machine_reads_and_writes_nothing(
    keyless: httpx.Client, host: str
) -> None:
    for asked in (
        keyless.build_request("POST", "/reviews", json=REVIEW, headers={"Host": host}),
        keyless.build_request("GET", "/users/u0", headers={"Host": host}),
        keyless.build_request("DELETE", "/reviews/any", params={"user": "u0", "item": "i0"}, headers={"Host": host}),
    ):
        refused = keyless.send(asked)
        assert (refused.status_code, refused.json()["type"]) == (421, "urn:u-bert:problem:misdirected")
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
def test_a_service_without_keys_goes_by_localhost_addresses_and_the_names_that_it_was_given(
    keyless: httpx.Client, host: str
) -> None:
    assert keyless.post("/predict", json=PREDICT, headers={"Host": host}).status_code == 200


def test_whoever_has_a_key_may_call_the_service_by_any_name(guarded: Guarded) -> None:
    headers = {"Host": "ratings.example", "Authorization": f"Bearer {guarded.reader}"}
    assert guarded.client.post("/predict", json=PREDICT, headers=headers).status_code == 200


def test_a_store_behind_tls_is_reached_and_one_with_a_strangers_certificate_is_not(
    tiny: TinyBundle, corpus: Corpus
) -> None:
    with tls_redis() as redis:
        trusting = f"rediss://127.0.0.1:{redis.port}/0?ssl_ca_certs={redis.authority}"
        store = open_store(trusting)
        corpus.write(store, tiny.bundle)
        with serving(settings_for(tiny.bundle, store=trusting), store) as client:
            wait_until_ready(client)
            (prediction,) = client.post("/predict", json=PREDICT).raise_for_status().json()["predictions"]
        store.close()
        assert prediction["basis"] == "full"

        for refused in (f"rediss://127.0.0.1:{redis.port}/0", f"redis://127.0.0.1:{redis.port}/0"):
            distrusting = open_store(refused)
            with pytest.raises(StoreUnavailableError):
                distrusting.namespaces()
            distrusting.close()
