"""A line of the log, as a machine reads it."""

import json
import logging
import sys

from ubert_service.observability.logs import formatter


def event(message: str, *arguments: object, failed: bool = False) -> dict[str, object]:
    """A record as ``logging`` makes it, formatted as JSON."""
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


def test_fields_of_an_event_stand_apart_and_in_its_message() -> None:
    logged = event("%(route)s took %(seconds).1f s", {"route": "/predict", "seconds": 0.25})
    assert (logged["message"], logged["route"], logged["seconds"]) == ("/predict took 0.2 s", "/predict", 0.25)
    assert (logged["level"], logged["logger"]) == ("WARNING", "ubert_service.x")
    assert str(logged["time"]).endswith("+00:00")


def test_a_field_never_takes_the_place_of_what_every_line_has() -> None:
    assert event("%(level)s", {"level": "forged"})["level"] == "WARNING"


def test_an_exception_is_one_line_with_its_cause() -> None:
    assert "ValueError: the cause" in str(event("failed", failed=True)["exception"])


def test_text_with_line_breaks_and_plain_arguments_stays_one_line() -> None:
    assert event("%s and %d", "a\nb", 3)["message"] == "a\nb and 3"
