"""A running process tells the store which namespaces it uses, so that `ubert states drop` leaves these alone."""

import logging
import os
import secrets
import socket
from collections.abc import Iterable

from ubert_model.errors import StateError, StoreError
from ubert_model.running.background import Background
from ubert_model.states.store import StateStore

HELD_S = 60.0
"""How long a namespace stays held by a process that was killed."""
_PAUSE_S = 15.0
_PAUSE_WHILE_AWAY_S = 1.0

_log = logging.getLogger(__name__)


def holder_name() -> str:
    """Tells an operator which process it is; no two are called the same."""
    return f"{socket.gethostname()[:200]}/{os.getpid()}/{secrets.token_hex(2)}"


class NamespaceHolder(Background):
    """While entered, holds the namespaces of ``versions``, in a thread of its own: the store may be away."""

    def __init__(self, store: StateStore, versions: Iterable[str]) -> None:
        super().__init__("holding")
        self._store = store
        self._versions = sorted(set(versions))
        self._name = holder_name()

    def _run(self) -> None:
        pause = 0.0
        while not self._ended.wait(pause):
            try:
                for version in self._versions:
                    self._store.hold(version, self._name, HELD_S)
            except (StoreError, StateError) as error:
                if pause != _PAUSE_WHILE_AWAY_S:
                    _log.warning(
                        "the state store could not be told that this process uses it, so `ubert states drop` may "
                        "remove what it uses: %s",
                        error,
                    )
                pause = _PAUSE_WHILE_AWAY_S
            except Exception:  # whatever it was: once this ends, a tool may drop what the process uses
                _log.exception("the state store could not be told that this process uses it")
                pause = _PAUSE_WHILE_AWAY_S
            else:
                pause = _PAUSE_S
        try:
            for version in self._versions:
                self._store.release(version, self._name)
        except (StoreError, StateError) as error:
            _log.warning("the state store believes for up to %.0f s that this process uses it: %s", HELD_S, error)
