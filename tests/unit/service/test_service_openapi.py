"""The OpenAPI description changes only on purpose.

To update the snapshot: ``python -m ubert_service.openapi > tests/unit/service/openapi.json``
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ubert_service.http.gate import may_queue
from ubert_service.openapi import description_text

SNAPSHOT = Path(__file__).with_name("openapi.json")


def without_version(text: str) -> dict[str, Any]:
    """Without the package's version, which a source tree that is not installed lacks."""
    description: dict[str, Any] = json.loads(text)
    description["info"].pop("version")
    return description


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Path, method and description of every operation."""
    for path, methods in json.loads(description_text())["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_the_description_equals_the_committed_snapshot() -> None:
    assert without_version(description_text()) == without_version(SNAPSHOT.read_text(encoding="utf-8")), (
        "the OpenAPI description has changed; if it was meant to: "
        "python -m ubert_service.openapi > tests/unit/service/openapi.json"
    )


def test_every_error_response_is_a_problem() -> None:
    for path, _, operation in operations():
        for status, response in operation["responses"].items():
            if not status.startswith("2"):
                assert list(response["content"]) == ["application/problem+json"], (path, status)


def test_exactly_the_routes_that_may_queue_document_429() -> None:
    for path, method, operation in operations():
        assert ("429" in operation["responses"]) == may_queue(method.upper(), path), (method, path)


def test_operations_have_short_names_for_the_functions_of_generated_clients() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]
    assert {"predict", "rank", "explain", "write_review", "remove_review", "promote"} <= set(names)
    assert len(set(names)) == len(names)


def test_no_parameter_may_be_null() -> None:
    """From "number or null", openapi-python-client made a function that passed a float as a header and failed."""
    for path, _, operation in operations():
        for parameter in operation.get("parameters", []):
            assert isinstance(parameter["schema"]["type"], str), (path, parameter["name"])


@pytest.mark.parametrize(
    ("path", "method", "status", "header"),
    [
        ("/predict", "post", "200", "X-Stale-Seconds"),
        ("/predict", "post", "429", "Retry-After"),
        ("/readyz", "get", "503", "Retry-After"),
        ("/reviews", "post", "200", "X-Read-Version"),
        ("/reviews", "post", "201", "X-Read-Version"),
        ("/reviews/{review_id}", "delete", "204", "X-Read-Version"),
    ],
)
def test_the_headers_that_callers_act_on_are_documented(path: str, method: str, status: str, header: str) -> None:
    description = json.loads(description_text())
    assert list(description["paths"][path][method]["responses"][status]["headers"]) == [header]
