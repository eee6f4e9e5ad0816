"""The service as it is run: a process from the command line, a real Redis, signals."""

import itertools
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest

from support.metrics import metric
from support.problems import problem_of
from support.processes import has_in_mask, running
from support.redis_server import RedisServer
from support.running_app import wait_until_ready
from support.serve_process import ServeProcess
from support.tiny_bundle import Corpus, TinyBundle, torch_rating
from support.waiting import wait_until
from ubert_model.states import MaintenanceStore, open_store
from ubert_service.commands.serve import main

CANDIDATES = [f"i{number}" for number in range(1_000)]


def arguments(tiny: TinyBundle, store_url: str, *more: str) -> list[str]:
    bundle = ["--bundle", str(tiny.bundle.path), "--codec", "fp32"]
    return [*more, *bundle, "--store", store_url, "--device", "cpu", "--threads", "1"]


def write_corpus(corpus: Corpus, tiny: TinyBundle, url: str) -> None:
    store = open_store(url)
    corpus.write(store, tiny.bundle)
    store.close()


def failed_checks(service: ServeProcess) -> list[str]:
    """The checks that keep it from being ready."""
    return [reason["check"] for reason in service.client.get("/readyz").json().get("reasons", ())]


def test_the_process_ranks_a_thousand_candidates_and_exits_with_0_on_sigterm(
    tiny: TinyBundle, corpus: Corpus, filled_redis_store: MaintenanceStore, own_redis_url: str
) -> None:
    with ServeProcess(*arguments(tiny, own_redis_url)) as service:
        wait_until_ready(service.client)
        (prediction,) = service.client.post("/predict", json={"pairs": [{"user": "u2", "item": "i4"}]}).json()[
            "predictions"
        ]
        ranked = service.client.post("/rank", json={"user": "u2", "candidates": CANDIDATES}).raise_for_status().json()
        status = service.terminate()

    assert status == 0
    assert prediction["rating"] == pytest.approx(torch_rating(tiny, corpus, "u2", "i4"), abs=1e-4)
    assert sorted(one["item"] for one in ranked["items"]) == sorted(CANDIDATES)
    ratings = [one["rating"] for one in ranked["items"]]
    assert ratings == sorted(ratings, reverse=True)
    assert "Traceback" not in "".join(service.log)


def test_while_the_store_is_away_requests_get_503_and_its_return_needs_no_restart(
    tiny: TinyBundle, corpus: Corpus
) -> None:
    question = {"user": "u0", "candidates": ["i0", "i1"]}
    with RedisServer() as redis_server:
        redis_server.stop()
        with ServeProcess(*arguments(tiny, redis_server.url, "--resident-bytes", "0")) as service:
            assert service.client.get("/healthz").status_code == 200
            for _ in range(2):  # down at the start, and again after it was up
                refused, unready = service.client.post("/rank", json=question), service.client.get("/readyz")
                assert problem_of(refused) == (503, "store-unavailable")
                assert unready.status_code == 503
                assert int(refused.headers["retry-after"]) > 0
                assert [reason["check"] for reason in unready.json()["reasons"]] == ["store"]

                redis_server.start()
                # A readiness check waits only briefly for the store, which may not be reconnected by then.
                wait_until(lambda: failed_checks(service) == ["states"])
                write_corpus(corpus, tiny, redis_server.url)
                wait_until_ready(service.client)
                service.client.post("/rank", json=question).raise_for_status()
                redis_server.stop()


@pytest.fixture(scope="module")
def service_without_store(tiny: TinyBundle) -> Iterator[ServeProcess]:
    with ServeProcess(*arguments(tiny, "redis://127.0.0.1:1/0")) as service:
        yield service


def test_sighup_without_a_shadow_bundle_is_logged_and_the_service_goes_on(service_without_store: ServeProcess) -> None:
    service_without_store.client.get("/healthz").raise_for_status()
    service_without_store.hang_up()
    wait_until(lambda: any("SIGHUP" in line and "--shadow-bundle" in line for line in service_without_store.log))
    service_without_store.client.get("/healthz").raise_for_status()


FEW_DESCRIPTORS = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
"""


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_on_all_ipv6_addresses_it_listens_on_those_of_ipv4_too_with_all_descriptors_that_it_may_have(
    tiny: TinyBundle,
) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    given = arguments(tiny, "redis://127.0.0.1:1/0", "--host", "::")
    with ServeProcess(*given, changed_by=FEW_DESCRIPTORS) as service:
        port = service.address.rpartition(":")[2]
        for host in ("127.0.0.1", "[::1]"):
            assert httpx.get(f"http://{host}:{port}/healthz", trust_env=False).status_code == 200
        assert metric(service.client, "process_max_fds") == most


A_CALL_HANGS = """
import time
from ubert_service import entry
from ubert_service.http import server
from ubert_service.scoring.engine import ScoringEngine

ScoringEngine.score = lambda *_: time.sleep(600)
server.SECONDS_TO_FINISH = server.SECONDS_TO_CLOSE = 1
"""
A_THREAD_HANGS = """
import threading, time
from ubert_service import entry

threading.Thread(target=time.sleep, args=(600,)).start()
entry.SECONDS_TO_CLOSE = 1
"""


@pytest.mark.parametrize(("changed_by", "expected"), [(A_CALL_HANGS, 504), (A_THREAD_HANGS, 200)])
def test_what_hangs_does_not_keep_the_process_from_ending(
    tiny: TinyBundle,
    filled_redis_store: MaintenanceStore,
    own_redis_url: str,
    changed_by: str,
    expected: int,
) -> None:
    with ServeProcess(*arguments(tiny, own_redis_url), changed_by=changed_by) as service:
        wait_until_ready(service.client)
        pair, limit = {"pairs": [{"user": "u2", "item": "i4"}]}, {"X-Request-Timeout": "5"}
        assert service.client.post("/predict", json=pair, headers=limit).status_code == expected
        status = service.terminate()
        wait_until(lambda: any("leaving what still runs" in line for line in service.log))
    assert status == 70


def run_program(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdin=subprocess.DEVNULL,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_sigterm_during_startup_ends_the_process_with_0(tiny: TinyBundle) -> None:
    command = [sys.executable, "-m", "ubert_service", *arguments(tiny, "redis://127.0.0.1:1/0"), "--port", "0"]
    with running(command, stderr=subprocess.PIPE) as process:
        wait_until(lambda: has_in_mask(process, "SigCgt", signal.SIGTERM))
        process.terminate()
        _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log
    assert "listening" not in log


def send_endlessly(caller: socket.socket) -> None:
    for _ in range(2_000):
        caller.sendall(b"x" * 10_000)


@pytest.mark.parametrize(
    "beginning",
    [
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Filler: ",
        b"GET /healthz?",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1;",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Filler: ",
    ],
    ids=["header", "address", "chunk extension", "trailer"],
)
def test_an_endless_head_chunk_extension_or_trailer_closes_the_connection(
    service_without_store: ServeProcess, beginning: bytes
) -> None:
    url = service_without_store.client.base_url
    with socket.create_connection((url.host, url.port or 0), timeout=60.0) as caller:
        caller.sendall(beginning)
        with pytest.raises(ConnectionError):
            send_endlessly(caller)
    service_without_store.client.get("/healthz").raise_for_status()


def test_an_idle_connection_is_kept_open_longer_than_by_default(service_without_store: ServeProcess) -> None:
    url = service_without_store.client.base_url
    with closing(HTTPConnection(url.host, url.port, timeout=60.0)) as caller:
        for pause in (0.0, 6.0):  # uvicorn's own limit is 5
            time.sleep(pause)
            caller.request("GET", "/healthz")
            assert caller.getresponse().read() == b'{"status":"alive"}'
            assert caller.sock is not None


def test_the_chunk_framing_of_a_whole_body_is_not_bounded(service_without_store: ServeProcess) -> None:
    body = itertools.chain([b"["], (b" " for _ in range(100_000)))  # one chunk each
    answer = service_without_store.client.post("/predict", content=body, headers={"Content-Type": "application/json"})
    assert problem_of(answer)[1] == "malformed-body"


def test_a_number_of_more_than_640_digits_is_refused(service_without_store: ServeProcess) -> None:
    headers = {"Content-Type": "application/json"}
    answers = [
        service_without_store.client.post("/predict", content=b'{"as_of": ' + b"9" * digits + b"}", headers=headers)
        for digits in (640, 641)
    ]
    assert [answer.status_code for answer in answers] == [422, 400]
    assert "too many digits" in answers[1].json()["detail"]


@pytest.mark.usefixtures("isolated_logging")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--bundle", "no-such-bundle"], "no-such-bundle"),
        (["--codec", "fp3"], "fp3"),
        (["--store", "ftp://x"], "ftp"),
        (["--store", "lmdb:no-such-store"], "no-such-store holds no state store"),
        (["--host", "192.0.2.1"], "192.0.2.1"),
    ],
)
def test_an_unusable_option_is_reported_in_one_line_with_exit_status_2(
    tiny: TinyBundle,
    change: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ubert-serve", *arguments(tiny, "redis://127.0.0.1:1/0"), *change])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("ubert-serve: ")
    assert message in line
    assert not list(tmp_path.iterdir())  # a misspelt path must not become an empty store


def test_a_prediction_imports_neither_torch_nor_transformers(
    tiny: TinyBundle, filled_store: MaintenanceStore, tmp_path: Path
) -> None:
    filled_store.close()
    program = f"""
        import sys
        from pathlib import Path
        from ubert_model.states import open_store
        from ubert_service.commands import serve
        from ubert_service.reading.histories import Pair
        from ubert_service.serving.opened import OpenedBundle
        from ubert_service.serving.served import ServedBundle
        from ubert_service.settings import Settings

        store = "lmdb:{tmp_path / "states"}"
        settings = Settings(bundle=Path({str(tiny.bundle.path)!r}), codec="fp32", store=store, device="cpu")
        served = ServedBundle(OpenedBundle.open(settings), open_store(store))
        predictions = served.engine.score([Pair("u0", f"i{{number}}") for number in range(12)])
        assert any(one.basis == "full" for one in predictions)
        loaded = {{name.partition(".")[0] for name in sys.modules}}
        print(sorted(loaded & {{"torch", "transformers", "ubert_training"}}), "ubert_model.nn" in sys.modules)
    """
    ended = run_program(program)
    assert ended.stdout == "[] False\n", ended.stderr
