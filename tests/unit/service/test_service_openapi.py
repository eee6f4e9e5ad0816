"""The OpenAPI description changes only on purpose.

To update the snapshot: ``python -m ubert_service.openapi > tests/unit/service/openapi.json``
"""

import json
from pathlib import Path
from typing import Any

from ubert_service.http.gate import may_queue
from ubert_service.openapi import description_text

SNAPSHOT = Path(__file__).with_name("openapi.json")


def without_version(text: str) -> dict[str, Any]:
    """Without the package's version, which a source tree that is not installed lacks."""
    description: dict[str, Any] = json.loads(text)
    description["info"].pop("version")
    return description


def test_the_description_equals_the_committed_snapshot() -> None:
    assert without_version(description_text()) == without_version(SNAPSHOT.read_text(encoding="utf-8")), (
        "the OpenAPI description has changed; if it was meant to: "
        "python -m ubert_service.openapi > tests/unit/service/openapi.json"
    )


def test_every_error_response_is_a_problem() -> None:
    for path, operations in json.loads(description_text())["paths"].items():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if not status.startswith("2"):
                    assert list(response["content"]) == ["application/problem+json"], (path, status)


def test_exactly_the_routes_that_may_queue_document_429() -> None:
    for path, operations in json.loads(description_text())["paths"].items():
        for method, operation in operations.items():
            assert ("429" in operation["responses"]) == may_queue(method.upper(), path), (method, path)
