"""The contract with callers changes only on purpose.

After a change on purpose: ``python -m ubert_service.openapi > tests/unit/service/openapi.json``
"""

import json
from pathlib import Path
from typing import Any

from ubert_service.http.gate import may_queue
from ubert_service.openapi import description_text

SNAPSHOT = Path(__file__).with_name("openapi.json")


def without_version(text: str) -> dict[str, Any]:
    """The version is the package's, and absent from a source tree that is not installed."""
    description: dict[str, Any] = json.loads(text)
    description["info"].pop("version")
    return description


def test_the_description_is_the_committed_one() -> None:
    assert without_version(description_text()) == without_version(SNAPSHOT.read_text(encoding="utf-8")), (
        "the OpenAPI description has changed; if it was meant to: "
        "python -m ubert_service.openapi > tests/unit/service/openapi.json"
    )


def test_every_error_of_every_route_is_a_problem() -> None:
    for path, operations in json.loads(description_text())["paths"].items():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if not status.startswith("2"):
                    assert list(response["content"]) == ["application/problem+json"], (path, status)


def test_every_route_that_the_queue_may_refuse_says_so_and_no_other() -> None:
    for path, operations in json.loads(description_text())["paths"].items():
        for method, operation in operations.items():
            assert ("429" in operation["responses"]) == may_queue(method.upper(), path), (method, path)
