"""The JSON format of the log: one line per event."""

import json
import logging
import sys

from ubert_service.observability.logs import formatter


def event(message: str, *arguments: object, failed: bool = False) -> dict[str, object]:
    """A log record formatted as JSON, and parsed again."""
    try:
        if failed:
            raise ValueError("the cause")
        cause = None
    except ValueError:
        cause = sys.exc_info()
    record = logging.LogRecord("ubert_service.x", logging.WARNING, __file__, 1, message, arguments, cause)
    line = formatter("json").format(record)
    assert "\n" not in line
    parsed: dict[str, object] = json.loads(line)
    return parsed


def test_the_fields_of_an_event_are_keys_of_its_line_and_part_of_its_message() -> None:
    logged = event("%(route)s took %(seconds).1f s", {"route": "/predict", "seconds": 0.25})
    assert (logged["message"], logged["route"], logged["seconds"]) == ("/predict took 0.2 s", "/predict", 0.25)
    assert (logged["level"], logged["logger"]) == ("WARNING", "ubert_service.x")
    assert str(logged["time"]).endswith("+00:00")


def test_a_field_never_replaces_a_key_that_every_line_has() -> None:
    assert event("%(level)s", {"level": "forged"})["level"] == "WARNING"


def test_an_exception_is_logged_on_one_line() -> None:
    assert "ValueError: the cause" in str(event("failed", failed=True)["exception"])


def test_a_message_with_a_line_break_is_logged_on_one_line() -> None:
    assert event("%s and %d", "a\nb", 3)["message"] == "a\nb and 3"
