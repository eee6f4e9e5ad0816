"""The process: a listening socket, uvicorn on it, and a clean end on SIGTERM."""

import logging
import signal
import socket
import sys
from types import FrameType

import uvicorn
from fastapi import FastAPI

from ubert_model.errors import ConfigError
from ubert_service.logs import configure_logs
from ubert_service.settings import Settings

_SECONDS_TO_FINISH = 30
_STARTUP_FAILED = 3

_log = logging.getLogger("ubert_service")


def serve(app: FastAPI, settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then finish the requests that have begun.

    Logs ``listening on http://HOST:PORT`` once connections are accepted. Raises ``ConfigError`` if the address
    cannot be listened on.
    """
    with _listen(settings.host, settings.port) as listener:
        configure_logs(settings)
        _end_quietly_on_signals()
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        _log.info("listening on http://%s:%d", host, listener.getsockname()[1])
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,  # the app's own line carries the request id
            server_header=False,
            timeout_graceful_shutdown=_SECONDS_TO_FINISH,
        )
        server = uvicorn.Server(config)
        server.run(sockets=[listener])
    if not server.started:
        sys.exit(_STARTUP_FAILED)


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
