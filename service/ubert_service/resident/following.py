"""Keeping what a process holds true to the store, by the store's feed of changes (``ubert_model.states.changes``)."""

import logging
import time
from collections.abc import Callable
from threading import Lock
from typing import Protocol

from ubert_model.errors import StateError, StoreError, StoreUnavailableError
from ubert_model.states import Changes, Revision, StateStore
from ubert_service.errors import LostRevisionError
from ubert_service.read_version import ReadVersion

_log = logging.getLogger(__name__)


class Forgetful(Protocol):
    """Whatever holds copies of what the store has."""

    def drop(self, marks: frozenset[bytes] | None) -> None:
        """Forget what these marks stand for, or everything (None)."""


class Follower:
    """Has copies dropped as the store changes. Thread-safe.

    Where ``settle`` has returned, the copies hold everything that was announced ``max_lag_s`` ago or earlier, unless
    the store is away: then they are as old as ``stale_s`` says.
    """

    def __init__(
        self,
        *,
        store: StateStore,
        version: str,
        copies: Forgetful,
        max_lag_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._version = version
        self._copies = copies
        self._max_lag_s = max_lag_s
        self._clock = clock
        self._asking = Lock()
        self._begun = self._answered = self._failures = 0
        self._revision: Revision | None = None
        self._history: str | None = None
        self._confirmed_at = -float("inf")
        self._away: str | None = None
        self.kept_up = False
        """Someone asks again and again, so no request has to wait while a store that is away is asked."""

    @property
    def away(self) -> str | None:
        """Why the store could not be asked when that was last tried; None if it could."""
        return self._away

    @property
    def stale_s(self) -> float:
        """How long ago the copies were last known to be true, if that is longer than they may lag behind; else 0."""
        age = self._clock() - self._confirmed_at
        return age if self._away is not None and age > self._max_lag_s else 0.0

    def settle(self) -> None:
        """Ask for changes unless that was done ``max_lag_s`` ago or later."""
        if self._clock() - self._confirmed_at <= self._max_lag_s or (self.kept_up and self._away is not None):
            return
        self.ask()

    def ask(self) -> None:
        """Ask for changes now, and have what they tell of dropped. A store that is away is remembered, not raised, and
        so is an error that nobody foresaw, as out of the store's library amid a failover.
        """
        last_begun, failures = self._begun, self._failures
        with self._asking:
            if self._answered > last_begun:
                return  # another thread has begun to ask since, and was answered
            if self._failures > failures:
                return  # another thread has waited in vain meanwhile: who also did would take its time once more
            self._begun += 1
            asked_at = self._clock()
            try:
                self._take(self._store.changes(self._version, self._revision))
            except Exception as error:  # whatever it was: who asks again and again has to go on, or nobody would
                self._failures, self._away = self._failures + 1, self._reason(error)
                return
            if self._away is not None:
                _log.info("the state store tells of changes again")
            self._away, self._confirmed_at = None, asked_at
            self._answered = self._begun

    def catch_up(self, written: ReadVersion) -> None:
        """Return once the copies hold the write that was answered with this.

        One of another namespace, as from a replica with another live bundle, stands in this feed as well by the time
        it is answered: where, nobody knows, so all that is there now is read.

        Raises ``StoreUnavailableError`` if that cannot be found out, ``LostRevisionError`` if the store has never got
        so far.
        """
        revision, ours = written.revision, written.namespace == self._version
        if ours and self._reaches(revision):
            return
        if not (self.kept_up and self._away is not None):
            self.ask()
        if self._away is not None:
            raise StoreUnavailableError(f"whether revision {revision} can be read is not known: {self._away}")
        if ours and self._revision is not None and not self._reaches(revision):
            raise LostRevisionError(
                f"the store is at revision {self._revision} and has not seen {revision}: it has lost that write, or "
                "another store was answered with it; ask again without it"
            )

    def _reason(self, error: Exception) -> str:
        """Why the store is taken for away, which the log has once."""
        if isinstance(error, StoreError | StateError):
            if self._away is None:
                _log.warning("the state store does not tell of changes: %s", error)
            return str(error)
        reason = f"the state store could not be asked: {type(error).__name__}, as the log tells"
        if self._away != reason:
            _log.error("the state store does not tell of changes", exc_info=error)
        return reason

    def _take(self, changes: Changes) -> None:
        another = self._history not in {None, changes.history}
        if another:
            _log.warning("the state store was restarted or has failed over: nothing read before is kept")
        if changes.marks is None or another:
            self._copies.drop(None)
        elif changes.marks:
            self._copies.drop(changes.marks)
        self._revision, self._history = changes.revision, changes.history

    def _reaches(self, revision: Revision) -> bool:
        return self._revision is not None and self._revision >= revision
