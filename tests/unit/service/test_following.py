"""When the follower polls the store, and what it logs while the store is away, by a clock that the test sets."""

import threading
from typing import cast

import pytest

from support.watched_lock import WatchedLock
from ubert_model.errors import StoreUnavailableError
from ubert_model.states import Changes, Revision, StateStore
from ubert_service.resident.follower import Follower

LAG_S = 0.5
TIMEOUT_S = 60.0


class Store:
    """Takes ``seconds`` to answer, or fails."""

    def __init__(self) -> None:
        self.now = 100.0
        self.polls = 0
        self.seconds = 0.0
        self.failure: Exception | None = None

    def changes(self, version: str, since: Revision | None) -> Changes:
        self.polls += 1
        self.now += self.seconds
        if self.failure is not None:
            raise self.failure
        return Changes(marks=frozenset(), revision=Revision(1), history="one server's")


def follower_of(store: Store) -> Follower:
    return Follower(
        store=cast("StateStore", store), version="0f", drop=lambda marks: None, max_lag_s=LAG_S, clock=lambda: store.now
    )


def test_the_age_of_copies_counts_from_the_start_of_a_poll() -> None:
    store = Store()
    store.seconds = 2 * LAG_S  # the answer holds nothing that was written while it was on its way
    follower = follower_of(store)
    follower.poll_if_stale()
    follower.poll_if_stale()
    assert store.polls == 2


@pytest.mark.parametrize(("polled", "polls"), [(True, 1), (False, 3)])
def test_while_the_store_is_away_requests_poll_only_without_a_background_thread(polled: bool, polls: int) -> None:
    store = Store()
    store.failure = StoreUnavailableError("it is away")
    follower = follower_of(store)
    follower.polled = polled
    for _ in range(3):
        follower.poll_if_stale()
    assert (store.polls, follower.away) == (polls, "it is away")


@pytest.mark.parametrize("failure", [StoreUnavailableError("it is away"), AttributeError("unforeseen")])
def test_each_outage_is_logged_once(failure: Exception, caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    follower = follower_of(store)
    for store.failure in (failure, failure, None, failure, failure):
        follower.poll()
    assert len(caplog.records) == 2


def test_a_poll_that_had_begun_before_the_call_is_not_relied_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer may lack a change that the caller knows of."""
    asking, answered, lock = threading.Event(), threading.Event(), WatchedLock()

    class SlowStore(Store):
        def changes(self, version: str, since: Revision | None) -> Changes:
            asking.set()
            assert answered.wait(TIMEOUT_S)
            return super().changes(version, since)

    store = SlowStore()
    follower = follower_of(store)
    monkeypatch.setattr(follower, "_polling", lock)
    first, second = (threading.Thread(target=follower.poll) for _ in range(2))
    first.start()
    assert asking.wait(TIMEOUT_S)
    second.start()
    for _ in range(2):
        assert lock.attempts.acquire(timeout=TIMEOUT_S)
    answered.set()
    for thread in (first, second):
        thread.join()
    assert store.polls == 2
