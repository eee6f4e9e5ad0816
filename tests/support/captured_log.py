"""Capturing what the service logs during a test."""

import io
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ubert_service.observability.logs import formatter
from ubert_service.settings import LogFormat


@contextmanager
def captured_log(log_format: LogFormat) -> Iterator[io.StringIO]:
    """Everything that the process logs, debug messages included, in the service's own format."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(formatter(log_format))
    root, client = logging.getLogger(), [logging.getLogger(name) for name in ("httpx", "httpcore")]
    with ExitStack() as restored:
        for logger in (root, *client):
            restored.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.DEBUG if logger is root else logging.WARNING)
        restored.callback(root.removeHandler, handler)
        root.addHandler(handler)
        yield written
