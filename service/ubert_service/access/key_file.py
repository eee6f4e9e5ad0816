"""The file of API keys, watched: a key is given or revoked without a restart."""

import logging
from pathlib import Path

from ubert_model.errors import ConfigError
from ubert_model.running.background import Background
from ubert_service.access.keys import AccessScope, ApiKeys
from ubert_service.telemetry import KeysTelemetry

_LOOK_S = 1.0

_log = logging.getLogger(__name__)


class KeyFile(Background):
    """The keys of a file as it was last usable; while entered, it is looked at every ``look_s`` seconds.

    What stands in it counts once two looks in a row have found it, since the first may have come while it was being
    written. A file that is gone or cannot be used changes nothing but the log and the metrics: nobody is let in or
    locked out by a slip.

    Raises ``ConfigError`` if it cannot be used to begin with.
    """

    def __init__(self, path: Path, telemetry: KeysTelemetry, *, look_s: float = _LOOK_S) -> None:
        super().__init__("api-keys")
        self._path = path
        self._telemetry = telemetry
        self._look_s = look_s
        self._keys = ApiKeys.read(path)
        self._found: ApiKeys | str = self._keys
        """What the last look has found: keys, or why there are none."""
        self._told = ""

    def authorise(self, authorization: str | None, needed: AccessScope) -> str:
        """As :meth:`ApiKeys.authorise`, by the keys of now."""
        return self._keys.authorise(authorization, needed)

    def look(self) -> None:
        """Look at the file once."""
        found: ApiKeys | str
        try:
            found = ApiKeys.read(self._path)
        except ConfigError as error:
            found = str(error)
        twice, self._found = found == self._found, found
        if twice:
            self._take(found)

    def _run(self) -> None:
        while not self._ended.wait(self._look_s):
            self.look()

    def _take(self, found: ApiKeys | str) -> None:
        if isinstance(found, str):
            self._telemetry.keys_looked_at(in_force=False)
            if found != self._told:
                _log.error("%s; the keys that were there before still count", found)
            self._told = found
            return
        self._telemetry.keys_looked_at(in_force=True)
        if self._told or found != self._keys:
            _log.warning("API keys were read anew: %s", ", ".join(sorted(found.by_name)))
        self._told, self._keys = "", found
