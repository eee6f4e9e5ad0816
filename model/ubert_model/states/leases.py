"""Leases by which a running process keeps `ubert states drop` from removing the namespaces that it uses."""

import logging
import os
import secrets
import socket
from collections.abc import Iterable

from ubert_model.errors import StateError, StoreError
from ubert_model.running.background import BackgroundThread
from ubert_model.states.store import StateStore

LEASE_S = 60.0
"""How long a lease lasts: a process that was killed holds its namespaces that much longer."""
_RENEW_EVERY_S = 15.0
_RETRY_AFTER_S = 1.0

_log = logging.getLogger(__name__)


def holder_name() -> str:
    """A unique name that tells an operator which process it is."""
    return f"{socket.gethostname()[:200]}/{os.getpid()}/{secrets.token_hex(2)}"


class NamespaceLeases(BackgroundThread):
    """While entered, renews leases on the namespaces of ``versions``, in a thread: the store may be unavailable."""

    def __init__(self, store: StateStore, versions: Iterable[str]) -> None:
        super().__init__("holding")
        self._store = store
        self._versions = sorted(set(versions))
        self._name = holder_name()

    def _run(self) -> None:
        pause = 0.0
        while not self._stop.wait(pause):
            try:
                for version in self._versions:
                    self._store.hold(version, self._name, LEASE_S)
            except (StoreError, StateError) as error:
                if pause != _RETRY_AFTER_S:  # once an outage
                    _log.warning(
                        "cannot renew the leases on this process's namespaces; `ubert states drop` may remove them: %s",
                        error,
                    )
                pause = _RETRY_AFTER_S
            except Exception:  # of any kind: this thread must go on, or the leases expire
                _log.exception("cannot renew the leases on this process's namespaces")
                pause = _RETRY_AFTER_S
            else:
                pause = _RENEW_EVERY_S
        try:
            for version in self._versions:
                self._store.release(version, self._name)
        except (StoreError, StateError) as error:
            _log.warning("this process's namespaces stay held for up to %.0f s after its end: %s", LEASE_S, error)
