"""Every error of the tree has an answer, and answers of different kinds never share a name."""

import pytest

from ubert_model import errors
from ubert_service.problems import kind_of

EVERY_ERROR = [
    value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.UbertError)
]


@pytest.mark.parametrize("error", EVERY_ERROR)
def test_every_error_has_a_kind_of_problem(error: type[errors.UbertError]) -> None:
    kind = kind_of(error("message"))
    assert kind.status in {422, 500, 503, 507}
    assert kind.may_pass == (kind.status == 503)


def test_an_error_that_is_new_to_the_tree_is_answered_as_its_nearest_ancestor() -> None:
    class FrozenStoreError(errors.StoreUnavailableError):
        pass

    assert kind_of(FrozenStoreError("x")) == kind_of(errors.StoreUnavailableError("x"))


def test_one_name_stands_for_one_kind() -> None:
    kinds = {kind_of(error("message")) for error in EVERY_ERROR}
    assert len({kind.name for kind in kinds}) == len(kinds)


def test_only_what_may_pass_by_itself_asks_the_caller_to_try_again() -> None:
    passing = {error for error in EVERY_ERROR if kind_of(error("message")).may_pass}
    assert passing == {errors.StoreUnavailableError, errors.UnconfirmedWriteError, errors.DeviceUnavailableError}
