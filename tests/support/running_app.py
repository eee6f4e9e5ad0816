"""An app on a real uvicorn, on a free port, in a thread of the test process."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import uvicorn
from fastapi import FastAPI

from ubert_model.states import StateStore
from ubert_service.app import create_app
from ubert_service.serving.opened import OpenedBundle
from ubert_service.settings import Settings

_SECONDS_TO_START = 60.0
_SECONDS_TO_ANSWER = 60.0
_SECONDS_IDLE = 300
"""Longer than any test: a server that closes an idle connection may do so just as the next request is sent."""


@contextmanager
def running(app: FastAPI) -> Iterator[httpx.Client]:
    """A client of the running app. On exit the server shuts down, and the app's lifespan ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, log_config=None, access_log=False, timeout_keep_alive=_SECONDS_IDLE)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            deadline = time.monotonic() + _SECONDS_TO_START
            while not server.started and thread.is_alive() and time.monotonic() < deadline:
                time.sleep(0.005)
            assert server.started, "uvicorn did not start"
            base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            with httpx.Client(base_url=base_url, timeout=_SECONDS_TO_ANSWER, trust_env=False) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def serving(settings: Settings, store: StateStore) -> Iterator[httpx.Client]:
    """A client of the running service with these settings over this store."""
    with running(create_app(settings, OpenedBundle.open(settings), store)) as client:
        yield client


def wait_until_ready(client: httpx.Client) -> httpx.Response:
    """Ask ``/readyz`` until it succeeds, and return that answer: warming takes a moment."""
    deadline = time.monotonic() + _SECONDS_TO_START
    while (answer := client.get("/readyz")).status_code != 200 and time.monotonic() < deadline:
        time.sleep(0.02)
    return answer.raise_for_status()
