"""The service's log on stderr, as text or as JSON, one line per event.

An event with fields is logged with one mapping for its arguments: ``log.info("%(route)s %(status)s", fields)``.
No event holds the text of a review or the URL of the store.
"""

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ubert_service.settings import LogFormat, Settings


class JsonFormatter(logging.Formatter):
    """One JSON object per line: ``time`` (UTC), ``level``, ``logger``, ``message``, the fields of the event under their
    own names, and ``exception`` if there was one.
    """

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if isinstance(record.args, Mapping):
            event |= {name: value for name, value in record.args.items() if name not in event}
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return json.dumps(event, default=str)


def formatter(log_format: LogFormat) -> logging.Formatter:
    """The formatter of a log format."""
    if log_format == "json":
        return JsonFormatter()
    return logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s")


def configure_logs(settings: Settings) -> None:
    """Log to stderr at the level and in the format of the settings, replacing any earlier configuration."""
    # No line shows these, and to look them up is half the cost of an event.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(settings.log_format))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
