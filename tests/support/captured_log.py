"""Capturing what the service logs during a test."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ubert_service.observability.logs import formatter
from ubert_service.settings import LogFormat


@contextmanager
def captured_log(log_format: LogFormat) -> Iterator[io.StringIO]:
    """Everything that the process logs, debug messages included, in the service's own format."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(formatter(log_format))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    for name in ("httpx", "httpcore"):  # the test's own client
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        yield written
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
