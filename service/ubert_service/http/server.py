"""The process: a listening socket, uvicorn on it, and a clean end on SIGTERM."""

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from ubert_model.errors import ConfigError, UbertError
from ubert_model.states import numpy_in_one_thread
from ubert_service.context import ServiceContext
from ubert_service.http.connections import BoundedConnection
from ubert_service.settings import Settings

_SECONDS_TO_FINISH = 30
_SECONDS_IDLE = 75
"""For which a connection is kept between two requests. A balancer that keeps them longer, and many do for 60 s, sends a
request on one that is just being closed.
"""
_STDIN = 0
_STARTUP_FAILED = 3
_DRAIN_STEP = 0.02
_SWITCH_SECONDS = 0.00005
"""How long one thread may keep the interpreter from another that wants it. A scoring thread gives it up for each short
call to the runtime and to numpy, and under an overload the event loop never idles: at 0.5 ms to get it back, what was
accepted took ten times as long as alone, and a quarter as much was accepted.
"""

_MOST_DIGITS = 640
"""Of a whole number in a body, and the least that Python lets one set: no route takes a longer one. What a digit costs
grows with their number: of 8 MiB of such numbers the event loop had 0.20 s to read by Python's own limit, now 0.07.
"""

_log = logging.getLogger("ubert_service")


def serve(app: FastAPI, settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then finish the requests that have begun.

    Logs ``listening on http://HOST:PORT`` once connections are accepted. Raises ``ConfigError`` if the address
    cannot be listened on.
    """
    with _listen(settings.host, settings.port) as listener:
        _end_quietly_on_signals()
        sys.setswitchinterval(_SWITCH_SECONDS)
        sys.set_int_max_str_digits(_MOST_DIGITS)
        numpy_in_one_thread()
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        _log.info("listening on http://%s:%d", host, listener.getsockname()[1])
        config = uvicorn.Config(
            app,
            http=BoundedConnection,
            ws="none",  # no route speaks it, and a library for it would take over connections, bounds and all
            log_config=None,
            access_log=False,  # the app's own line carries the request id
            server_header=False,
            proxy_headers=False,  # no answer and no line depends on where a request came from
            timeout_keep_alive=_SECONDS_IDLE,
            timeout_graceful_shutdown=_SECONDS_TO_FINISH,
        )

        def announce_the_end() -> None:
            context: ServiceContext = app.state.context
            context.stopping.set()

        server = _DrainingServer(config, announce_the_end=announce_the_end, drain_seconds=settings.drain_seconds)
        # Also without a shadow, where it says so: by default the signal would end the process, and the requests in it.
        # Not so where a terminal sends it as it closes.
        if settings.shadow_bundle is not None or not os.isatty(_STDIN):
            _promote_on_hangup(app)
        server.run(sockets=[listener])
    if not server.started:
        sys.exit(_STARTUP_FAILED)


def _promote_on_hangup(app: FastAPI) -> None:
    def swap() -> None:
        context: ServiceContext = app.state.context
        try:
            context.bundles.promote()
        except UbertError as error:
            _log.error("SIGHUP: the shadow bundle was not promoted: %s", error)

    def promote(number: int, frame: FrameType | None) -> None:
        del number, frame
        # Not here: it asks the store, and a lock of the interrupted thread may be what it would wait for.
        threading.Thread(target=swap, name="ubert-promote").start()

    signal.signal(signal.SIGHUP, promote)


class _DrainingServer(uvicorn.Server):
    """Between the signal to end and the end of listening it serves on, says in ``/readyz`` and with ``Connection:
    close`` that it is leaving, and waits for callers to go: a request that is already on its way is answered.
    """

    def __init__(self, config: uvicorn.Config, *, announce_the_end: Callable[[], None], drain_seconds: float) -> None:
        super().__init__(config)
        self._announce_the_end = announce_the_end
        self._drain_seconds = drain_seconds

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._announce_the_end()
        until = time.monotonic() + self._drain_seconds
        while self.server_state.connections and time.monotonic() < until and not self.force_exit:
            await asyncio.sleep(_DRAIN_STEP)
        await super().shutdown(sockets)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error}; choose another --host or --port") from error


def _end_quietly_on_signals() -> None:
    # When it has shut down, uvicorn raises the signal again; by default that would end the process as if killed.
    def end(number: int, frame: FrameType | None) -> None:
        del number, frame
        sys.exit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
