"""The cached download of reviews, from a real HTTP server whose responses are good, bad, truncated or too slow."""

import base64
import gzip
import json
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ubert_training.corpora import corpus
from ubert_training.corpora.corpus import fetch_musical_instruments

Respond = Callable[[BaseHTTPRequestHandler], None]


@cache
def reviews_file() -> bytes:
    """A gzip file of Amazon reviews that is as large as the real one must be."""
    text = base64.b64encode(incompressible_bytes()).decode()
    return gzip.compress(json.dumps({"reviewerID": "u", "asin": "i", "overall": 5, "reviewText": text}).encode(), 1)


def incompressible_bytes() -> bytes:
    return random.Random(0).randbytes(1_100_000)


@contextmanager
def serving(respond: Respond) -> Iterator[tuple[str, list[str]]]:
    """A server on a free port; yields the address of the file and the paths requested so far."""
    requested: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requested.append(self.path)
            respond(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/reviews.json.gz", requested
        finally:
            server.shutdown()
            thread.join()


def sending(content: bytes, *, content_length: int | None = None, status: int = 200) -> Respond:
    def respond(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(content) if content_length is None else content_length))
        request.end_headers()
        request.wfile.write(content)

    return respond


def sending_nothing(request: BaseHTTPRequestHandler) -> None:
    request.connection.recv(1)  # returns when the client closes the connection


def sending_slowly(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    for _ in range(12):
        request.wfile.write(b"\x1f")
        request.wfile.flush()
        time.sleep(0.05)


def test_the_file_is_downloaded_once_and_then_read_from_the_cache(tmp_path: Path) -> None:
    with serving(sending(reviews_file())) as (address, requested):
        first = fetch_musical_instruments(tmp_path / "cache", address=address)
        second = fetch_musical_instruments(tmp_path / "cache", address=address)
    assert first == second == tmp_path / "cache" / "reviews_Musical_Instruments_5.json.gz"
    assert first.read_bytes() == reviews_file()
    assert len(requested) == 1


BAD_RESPONSES: dict[str, tuple[Callable[[], Respond], str]] = {
    "not found": (lambda: sending(b"gone", status=404), "404"),
    "cut short": (lambda: sending(reviews_file()[:-9], content_length=len(reviews_file())), "received "),
    "cut short, length unknown to the client": (lambda: sending(reviews_file()[:-9]), "end-of-stream"),
    "wrong checksum": (lambda: sending(reviews_file()[:-8] + bytes(4) + reviews_file()[-4:]), "CRC check failed"),
    "too small": (lambda: sending(gzip.compress(b"{}")), "too few"),
    "not gzip": (lambda: sending(b"<html>" * 200_000), "gzip"),
    "other content": (lambda: sending(gzip.compress(incompressible_bytes())), "not JSON"),
    "silent": (lambda: sending_nothing, "timed out"),
    "slow": (lambda: sending_slowly, "received only"),
}

SHORT_LIMITS: dict[str, dict[str, float]] = {"silent": {"timeout": 0.2}, "slow": {"deadline": 0.3}}
"""For the responses that are to exceed them; on a busy machine any other could, too."""


@pytest.mark.parametrize("case", BAD_RESPONSES)
def test_a_bad_response_gives_none_logs_the_reason_and_leaves_no_file(
    case: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_respond, reason = BAD_RESPONSES[case]
    with serving(make_respond()) as (address, _), caplog.at_level(logging.WARNING):
        assert fetch_musical_instruments(tmp_path, address=address, **SHORT_LIMITS.get(case, {})) is None
    assert list(tmp_path.iterdir()) == []
    assert reason in caplog.text
    assert address in caplog.text


def test_a_download_of_too_many_bytes_is_discarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "MOST_BYTES", 100_000)
    with serving(sending(reviews_file())) as (address, _):
        assert fetch_musical_instruments(tmp_path, address=address) is None
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_the_result_is_none(tmp_path: Path) -> None:
    with serving(sending_nothing) as (address, _):
        pass  # the server has stopped: its port refuses connections
    assert fetch_musical_instruments(tmp_path, address=address) is None


def test_a_damaged_file_in_the_cache_is_downloaded_again(tmp_path: Path) -> None:
    (tmp_path / "reviews_Musical_Instruments_5.json.gz").write_bytes(reviews_file()[:-100])
    with serving(sending(reviews_file())) as (address, requested):
        path = fetch_musical_instruments(tmp_path, address=address)
    assert path is not None
    assert path.read_bytes() == reviews_file()
    assert len(requested) == 1


def test_with_an_unwritable_cache_the_result_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with serving(sending(reviews_file())) as (address, _):
        assert fetch_musical_instruments(tmp_path / "file", address=address) is None


def test_the_cache_follows_the_xdg_convention(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert corpus.cache_folder() == tmp_path / "u-bert"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert corpus.cache_folder() == tmp_path / ".cache" / "u-bert"
