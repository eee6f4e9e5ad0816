"""Every error of the tree has an answer, and answers of different kinds never share a name."""

import logging

import pytest

from ubert_model import errors
from ubert_service.errors import NotReadyError, OverloadedError, UnknownUserError
from ubert_service.http.problems import error_response, kind_of

EVERY_ERROR = [
    value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.UbertError)
]


@pytest.mark.parametrize("error", EVERY_ERROR)
def test_every_error_has_a_kind_of_problem(error: type[errors.UbertError]) -> None:
    kind = kind_of(error("message"))
    assert kind.status in {422, 500, 503, 507}
    assert kind.retryable == (kind.status == 503)


def test_an_error_that_is_new_to_the_tree_is_answered_as_its_nearest_ancestor() -> None:
    class FrozenStoreError(errors.StoreUnavailableError):
        pass

    assert kind_of(FrozenStoreError("x")) == kind_of(errors.StoreUnavailableError("x"))


def test_one_name_stands_for_one_kind() -> None:
    kinds = {kind_of(error("message")) for error in EVERY_ERROR}
    assert len({kind.name for kind in kinds}) == len(kinds)


def test_only_what_may_pass_by_itself_asks_the_caller_to_try_again() -> None:
    passing = {error for error in EVERY_ERROR if kind_of(error("message")).retryable}
    assert passing == {errors.StoreUnavailableError, errors.UnconfirmedWriteError, errors.DeviceUnavailableError}


@pytest.mark.parametrize(
    ("error", "seconds"),
    [(OverloadedError("full", retry_after_s=6.2), "7"), (NotReadyError("soon"), "1"), (UnknownUserError("who"), None)],
)
def test_what_may_pass_says_when_to_try_again(error: errors.UbertError, seconds: str | None) -> None:
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
def test_only_what_has_to_be_looked_into_has_a_traceback_in_the_log(
    error: errors.UbertError, level: str, traced: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        error_response(error, {"state": {"request_id": "R"}})
    (record,) = caplog.records
    assert (record.levelname, record.exc_info is not None) == (level, traced)
