"""When a process renews its leases, and that no failure of the store ends this. The test's clock does not wait."""

import threading
from typing import cast

import pytest

from ubert_model.errors import StateError, StoreUnavailableError
from ubert_model.states import NamespaceLeases, StateStore
from ubert_model.states.leases import LEASE_S

VERSIONS = ["0f", "1f"]


class Store:
    """Holds leases, or fails at those attempts that ``failures`` gives."""

    def __init__(self, failures: dict[int, Exception]) -> None:
        self.failures = failures
        self.attempts = 0
        self.held: list[tuple[str, str, float]] = []
        self.released: list[tuple[str, str]] = []

    def hold(self, version: str, holder: str, seconds: float) -> None:
        self.attempts += 1
        if self.attempts in self.failures:
            raise self.failures[self.attempts]
        self.held.append((version, holder, seconds))

    def release(self, version: str, holder: str) -> None:
        self.released.append((version, holder))


class Pauses(threading.Event):
    """Lets no time pass, and is set after ``count`` pauses."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self.seconds: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout)
        return len(self.seconds) > self.count


def pauses_between_renewals(store: Store, monkeypatch: pytest.MonkeyPatch, *, renewals: int) -> list[float | None]:
    leases = NamespaceLeases(cast("StateStore", store), [*VERSIONS, VERSIONS[0]])
    pauses = Pauses(renewals)
    monkeypatch.setattr(leases, "_stop", pauses)
    with leases:
        pass  # until the thread, which makes that many renewals, has ended
    holders = {holder for _, holder, _ in store.held}
    assert store.released == [(version, holder) for holder in holders for version in VERSIONS]
    return pauses.seconds


def test_leases_are_renewed_twice_while_they_last_and_released_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store({})
    first, *pauses = pauses_between_renewals(store, monkeypatch, renewals=3)
    assert first == 0.0
    assert all(pause is not None and 0 < 2 * pause < LEASE_S for pause in pauses)
    assert [(version, seconds) for version, _, seconds in store.held] == [(each, LEASE_S) for each in VERSIONS] * 3


@pytest.mark.parametrize("failure", [StoreUnavailableError("away"), StateError("damaged"), RuntimeError("unforeseen")])
def test_a_lease_that_could_not_be_renewed_is_tried_again_after_a_second(
    failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store({2: failure, 3: failure})
    assert pauses_between_renewals(store, monkeypatch, renewals=4)[:3] == [0.0, 1.0, 1.0]
    assert [version for version, _, _ in store.held] == [VERSIONS[0], *VERSIONS, *VERSIONS]
