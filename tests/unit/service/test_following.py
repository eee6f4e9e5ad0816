"""When a store is asked for its changes, and what is told of one that is away, by a clock that the test turns."""

from typing import cast

import pytest

from ubert_model.errors import StoreUnavailableError
from ubert_model.states import Changes, Revision, StateStore
from ubert_service.resident.follower import Follower

LAG_S = 0.5


class Store:
    """Takes ``seconds`` to answer, or fails."""

    def __init__(self) -> None:
        self.now = 100.0
        self.asked = 0
        self.seconds = 0.0
        self.failure: Exception | None = None

    def changes(self, version: str, since: Revision | None) -> Changes:
        self.asked += 1
        self.now += self.seconds
        if self.failure is not None:
            raise self.failure
        return Changes(marks=frozenset(), revision=Revision(1), history="one server's")


class Copies:
    def drop(self, marks: frozenset[bytes] | None) -> None: ...


def follower_of(store: Store) -> Follower:
    return Follower(
        store=cast("StateStore", store), version="0f", copies=Copies(), max_lag_s=LAG_S, clock=lambda: store.now
    )


def test_copies_are_as_old_as_the_question_and_not_as_the_answer() -> None:
    store = Store()
    store.seconds = 2 * LAG_S  # what was written while the answer was on its way is not in it
    follower = follower_of(store)
    follower.poll_if_stale()
    follower.poll_if_stale()
    assert store.asked == 2


@pytest.mark.parametrize(("polled", "asked"), [(True, 1), (False, 3)])
def test_a_store_that_is_away_is_asked_by_every_request_unless_someone_else_does(polled: bool, asked: int) -> None:
    store = Store()
    store.failure = StoreUnavailableError("it is away")
    follower = follower_of(store)
    follower.polled = polled
    for _ in range(3):
        follower.poll_if_stale()
    assert (store.asked, follower.away) == (asked, "it is away")


@pytest.mark.parametrize("failure", [StoreUnavailableError("it is away"), AttributeError("nobody foresaw it")])
def test_each_outage_is_told_once(failure: Exception, caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    follower = follower_of(store)
    for store.failure in (failure, failure, None, failure, failure):
        follower.poll()
    assert len(caplog.records) == 2
