"""Runs the process: a listening socket, uvicorn on it, and a graceful shutdown on SIGTERM."""

import asyncio
import logging
import resource
import socket
import sys
import time
from contextlib import suppress

import uvicorn
from fastapi import FastAPI

from ubert_model.errors import ConfigError
from ubert_model.states import numpy_in_one_thread
from ubert_service.context import ServiceContext
from ubert_service.http.connections import BoundedConnection
from ubert_service.leaving import SECONDS_TO_CLOSE, leave_after
from ubert_service.settings import Settings
from ubert_service.signals import on_terminal, promote_on_hangup

SECONDS_TO_FINISH = 30
_SECONDS_IDLE = 75
"""How long an idle connection is kept. It must be longer than balancers keep theirs (many 60 s): else one would send a
request on a connection that is just being closed.
"""
_STARTUP_FAILED = 3
_DRAIN_POLL_S = 0.02
_SWITCH_SECONDS = 0.00005
"""How long a thread may hold the GIL while another wants it. A scoring thread releases it for each short call to the
runtime and to numpy, and under overload the event loop never idles. At 0.5 ms, admitted requests took ten times as long
as alone, and a quarter as many were admitted.
"""

_MOST_DIGITS = 640
"""Digits of an integer in a body: the lowest limit that Python allows; no route takes more. The cost per digit grows
with their number: 8 MiB of such integers block the event loop for 0.07 s, and for 0.20 s at Python's default limit.
"""

_log = logging.getLogger("ubert_service")


def serve(app: FastAPI, settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then finish the requests that have begun; end the process if one hangs.

    Logs ``listening on http://HOST:PORT`` once connections are accepted. Raises ``ConfigError`` if the address
    cannot be listened on.
    """
    with _listen(settings.host, settings.port) as listener:
        _allow_all_descriptors()
        sys.setswitchinterval(_SWITCH_SECONDS)
        sys.set_int_max_str_digits(_MOST_DIGITS)
        numpy_in_one_thread()
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        _log.info("listening on http://%s:%d", host, listener.getsockname()[1])
        config = uvicorn.Config(
            app,
            http=BoundedConnection,
            ws="none",  # no route uses it, and a WebSocket library would take over connections, without our bounds
            log_config=None,
            access_log=False,  # the app's own line has the request id
            server_header=False,
            proxy_headers=False,  # no answer and no log line depends on the client's address
            timeout_keep_alive=_SECONDS_IDLE,
            timeout_graceful_shutdown=SECONDS_TO_FINISH,
        )
        server = _DrainingServer(config, app, settings)
        server.run(sockets=[listener])
    if not server.started:
        sys.exit(_STARTUP_FAILED)


class _DrainingServer(uvicorn.Server):
    """Keeps serving between the signal to stop and the end of listening, so that requests already on their way are
    answered. Meanwhile ``/readyz`` fails and answers carry ``Connection: close``, so callers leave.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI, settings: Settings) -> None:
        super().__init__(config)
        self._app = app
        self._settings = settings

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        service: ServiceContext = self._app.state.context
        # Without a shadow too, as an error in the log: by default SIGHUP would end the process and its requests.
        if self._settings.shadow_bundle is not None or not on_terminal():
            promote_on_hangup(service.bundles.promote)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        service: ServiceContext = self._app.state.context
        service.stopping.set()
        until = time.monotonic() + self._settings.drain_seconds
        while self.server_state.connections and time.monotonic() < until and not self.force_exit:
            await asyncio.sleep(_DRAIN_POLL_S)
        limit = leave_after(SECONDS_TO_FINISH + SECONDS_TO_CLOSE)
        try:
            await super().shutdown(sockets)
        finally:
            limit.cancel()


def _allow_all_descriptors() -> None:
    """Each connection takes a descriptor. Many systems allow a process 1,024 of them, but more as soon as it asks."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS allows fewer than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        every_address = host == "::" and socket.has_dualstack_ipv6()  # of IPv4, too
        return socket.create_server((host, port), family=family, backlog=2048, dualstack_ipv6=every_address)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error}; choose another --host or --port") from error
