"""Cache coherence: follows the store's change feed (``ubert_model.states.changes``) and invalidates stale copies."""

import logging
import time
from collections.abc import Callable
from threading import Lock

from ubert_model.errors import StateError, StoreError, StoreUnavailableError
from ubert_model.states import Changes, Revision, StateStore
from ubert_service.errors import LostRevisionError
from ubert_service.read_version import ReadVersion

_log = logging.getLogger(__name__)


class Follower:
    """Invalidates copies as the store changes: ``drop`` those with these marks, or all (None). Thread-safe.

    When :meth:`poll_if_stale` returns, the copies reflect every change announced at least ``max_lag_s`` ago, unless the
    store is away: then they are as old as ``stale_s`` says.
    """

    def __init__(
        self,
        *,
        store: StateStore,
        version: str,
        drop: Callable[[frozenset[bytes] | None], None],
        max_lag_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._version = version
        self._drop = drop
        self._max_lag_s = max_lag_s
        self._clock = clock
        self._polling = Lock()
        self._begun = self._answered = self._failures = 0
        self._revision: Revision | None = None
        self._history: str | None = None
        self._confirmed_at = -float("inf")
        self._away: str | None = None
        self.polled = False
        """A background thread polls, so no request has to wait on a store that is away."""

    @property
    def away(self) -> str | None:
        """Why the last poll of the store failed; None if it succeeded."""
        return self._away

    @property
    def stale_s(self) -> float:
        """While the store is away: how long ago the copies were confirmed, if longer than the allowed lag; else 0."""
        age = self._clock() - self._confirmed_at
        return age if self._away is not None and age > self._max_lag_s else 0.0

    def poll_if_stale(self) -> None:
        """Poll unless the copies were confirmed within the last ``max_lag_s``."""
        if self._clock() - self._confirmed_at <= self._max_lag_s or (self.polled and self._away is not None):
            return
        self.poll()

    def poll(self) -> None:
        """Ask the store for changes now and invalidate what they name.

        Never raises: any failure, also an unforeseen one of the store's library during a failover, sets ``away``.
        """
        last_begun, failures = self._begun, self._failures
        with self._polling:
            if self._answered > last_begun:
                return  # another thread's poll began after this call did, and succeeded
            if self._failures > failures:
                return  # another thread's poll has just failed: to repeat it would double the wait
            self._begun += 1
            polled_at = self._clock()
            try:
                self._apply(self._store.changes(self._version, self._revision))
            except Exception as error:  # any error at all: the background thread must go on polling
                self._failures, self._away = self._failures + 1, self._reason(error)
                return
            if self._away is not None:
                _log.info("the state store's change feed can be read again")
            self._away, self._confirmed_at = None, polled_at
            self._answered = self._begun

    def reflects(self, written: ReadVersion) -> bool:
        """Are the copies known to reflect the write with this read version? Does not ask the store."""
        if self._revision is None or written.namespace != self._version:
            return False
        return self._revision >= written.revision

    def catch_up(self, written: ReadVersion) -> None:
        """Return once the copies reflect the write with this read version.

        A write of another namespace, as from a replica with another live bundle, is in this feed too by the time it is
        acknowledged. Its position here is unknown, so the feed is read to its end.

        Raises ``StoreUnavailableError`` if the feed cannot be read, ``LostRevisionError`` if the store has never
        reached that revision.
        """
        if self.reflects(written):
            return
        if not (self.polled and self._away is not None):
            self.poll()
        if self._away is not None:
            raise StoreUnavailableError(f"cannot tell whether revision {written.revision} has been read: {self._away}")
        if written.namespace == self._version and self._revision is not None and not self.reflects(written):
            raise LostRevisionError(
                f"the store is at revision {self._revision} and has never reached {written.revision}: it has lost that "
                "write, or the write went to another store; repeat the request without X-Read-Version"
            )

    def _reason(self, error: Exception) -> str:
        """Why the store counts as away; logged once per outage."""
        if isinstance(error, StoreError | StateError):
            if self._away is None:
                _log.warning("the state store's change feed cannot be read: %s", error)
            return str(error)
        reason = f"the state store's change feed cannot be read: {type(error).__name__}, see the log"
        if self._away != reason:
            _log.error("the state store's change feed cannot be read", exc_info=error)
        return reason

    def _apply(self, changes: Changes) -> None:
        restarted = self._history not in {None, changes.history}
        if restarted:
            _log.warning("the state store was restarted or has failed over: everything cached is dropped")
        if changes.marks is None or restarted:
            self._drop(None)
        elif changes.marks:
            self._drop(changes.marks)
        self._revision, self._history = changes.revision, changes.history
