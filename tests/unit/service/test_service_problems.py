"""The problem type of each error class: its status, its name, whether to retry, and what is logged."""

import logging

import pytest

from ubert_model import errors
from ubert_service.errors import NotReadyError, OverloadedError, UnknownUserError
from ubert_service.http import problems
from ubert_service.http.problems import ProblemType, error_response, kind_of

EVERY_ERROR = [
    value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.UbertError)
]


@pytest.mark.parametrize("error", EVERY_ERROR)
def test_every_error_has_a_problem_type(error: type[errors.UbertError]) -> None:
    kind = kind_of(error("message"))
    assert kind.status in {409, 422, 500, 503, 507}
    assert kind.retryable == (kind.status == 503)


def test_an_unlisted_error_has_the_problem_type_of_its_base_class() -> None:
    class FrozenStoreError(errors.StoreUnavailableError):
        pass

    assert kind_of(FrozenStoreError("x")) == kind_of(errors.StoreUnavailableError("x"))


def test_different_problem_types_have_different_names() -> None:
    kinds = {kind for kind in (*vars(problems).values(), *problems._OF_ERROR.values()) if isinstance(kind, ProblemType)}
    assert len({kind.name for kind in kinds}) == len(kinds)


def test_only_transient_errors_are_retryable() -> None:
    retryable = {error for error in EVERY_ERROR if kind_of(error("message")).retryable}
    assert retryable == {errors.StoreUnavailableError, errors.UnconfirmedWriteError, errors.DeviceUnavailableError}


@pytest.mark.parametrize(
    ("error", "seconds"),
    [(OverloadedError("full", retry_after_s=6.2), "7"), (NotReadyError("soon"), "1"), (UnknownUserError("who"), None)],
)
def test_a_retryable_problem_says_when_to_retry(error: errors.UbertError, seconds: str | None) -> None:
    response = error_response(error, {"state": {"request_id": "R"}})
    assert response.headers.get("retry-after") == seconds


@pytest.mark.parametrize(
    ("error", "level", "traced"),
    [
        (errors.StoreError("refused"), "ERROR", True),
        (errors.StoreUnavailableError("away"), "ERROR", False),
        (UnknownUserError("who"), "INFO", False),
    ],
)
def test_only_an_internal_error_is_logged_with_a_traceback(
    error: errors.UbertError, level: str, traced: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        error_response(error, {"state": {"request_id": "R"}})
    (record,) = caplog.records
    assert (record.levelname, record.exc_info is not None) == (level, traced)
