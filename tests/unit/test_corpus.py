"""The cached download, against a real HTTP server that serves, refuses, breaks off, lies and stays silent."""

import base64
import gzip
import json
import logging
import os
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

Answer = Callable[[BaseHTTPRequestHandler], None]


@cache
def reviews_file() -> bytes:
    """A gzip file of Amazon reviews that is as large as the real one must be."""
    noise = base64.b64encode(os.urandom(1_100_000)).decode()
    return gzip.compress(json.dumps({"reviewerID": "u", "asin": "i", "overall": 5, "reviewText": noise}).encode(), 1)


@contextmanager
def serving(answer: Answer) -> Iterator[tuple[str, list[str]]]:
    """A server on a free port; yields its address and the paths it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/reviews.json.gz", asked
        finally:
            server.shutdown()
            thread.join()


def sending(content: bytes, *, announced: int | None = None, status: int = 200) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(content) if announced is None else announced))
        request.end_headers()
        request.wfile.write(content)

    return answer


def silent(request: BaseHTTPRequestHandler) -> None:
    request.connection.recv(1)  # until whoever asked has given up


def trickling(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    for _ in range(12):
        request.wfile.write(b"\x1f")
        request.wfile.flush()
        time.sleep(0.05)


def test_the_file_is_downloaded_once_and_then_comes_from_the_cache(tmp_path: Path) -> None:
    with serving(sending(reviews_file())) as (address, asked):
        first = fetch_musical_instruments(tmp_path / "cache", address=address)
        second = fetch_musical_instruments(tmp_path / "cache", address=address)
    assert first == second == tmp_path / "cache" / "reviews_Musical_Instruments_5.json.gz"
    assert first.read_bytes() == reviews_file()
    assert len(asked) == 1


BAD_ANSWERS: dict[str, tuple[Callable[[], Answer], str]] = {
    "not found": (lambda: sending(b"gone", status=404), "404"),
    "cut short": (lambda: sending(reviews_file()[:-9], announced=len(reviews_file())), "received "),
    "cut short, length unknown to the client": (lambda: sending(reviews_file()[:-9]), "end-of-stream"),
    "damaged": (lambda: sending(reviews_file()[:-500_000] + bytes(500_000)), ""),
    "too small": (lambda: sending(gzip.compress(b"{}")), "too few"),
    "no gzip": (lambda: sending(b"<html>" * 200_000), "gzip"),
    "other content": (lambda: sending(gzip.compress(os.urandom(1_100_000))), "not JSON"),
    "silent": (lambda: silent, "timed out"),
    "trickling": (lambda: trickling, "received only"),
}

HASTE: dict[str, dict[str, float]] = {"silent": {"timeout": 0.2}, "trickling": {"deadline": 0.3}}
"""Of an answer that comes late; on a busy machine any other might."""


@pytest.mark.parametrize("case", BAD_ANSWERS)
def test_a_bad_answer_gives_nothing_says_why_and_leaves_no_file(
    case: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_answer, reason = BAD_ANSWERS[case]
    with serving(make_answer()) as (address, _), caplog.at_level(logging.WARNING):
        assert fetch_musical_instruments(tmp_path, address=address, **HASTE.get(case, {})) is None
    assert list(tmp_path.iterdir()) == []
    assert reason in caplog.text
    assert address in caplog.text


def test_an_endless_answer_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "MOST_BYTES", 100_000)
    with serving(sending(reviews_file())) as (address, _):
        assert fetch_musical_instruments(tmp_path, address=address) is None
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_there_is_nothing_and_no_error(tmp_path: Path) -> None:
    with serving(silent) as (address, _):
        pass  # the server is gone, its port refuses
    assert fetch_musical_instruments(tmp_path, address=address) is None


def test_a_damaged_cache_is_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "reviews_Musical_Instruments_5.json.gz").write_bytes(reviews_file()[:-100])
    with serving(sending(reviews_file())) as (address, asked):
        path = fetch_musical_instruments(tmp_path, address=address)
    assert path is not None
    assert path.read_bytes() == reviews_file()
    assert len(asked) == 1


def test_a_cache_that_cannot_be_written_gives_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with serving(sending(reviews_file())) as (address, _):
        assert fetch_musical_instruments(tmp_path / "file", address=address) is None


def test_the_cache_follows_the_xdg_convention(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert corpus.cache_folder() == tmp_path / "u-bert"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert corpus.cache_folder() == tmp_path / ".cache" / "u-bert"
