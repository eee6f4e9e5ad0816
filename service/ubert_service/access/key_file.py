"""Watches the file of API keys, so that keys are added and revoked without a restart."""

import logging
from pathlib import Path

from ubert_model.errors import ConfigError
from ubert_model.running.background import BackgroundThread
from ubert_service.access.keys import AccessScope, ApiKeys
from ubert_service.observability.metrics import PrometheusMetrics

_CHECK_INTERVAL_S = 1.0

_log = logging.getLogger(__name__)


class KeyFile(BackgroundThread):
    """The keys of the last usable version of a file, which is checked every ``interval_s`` seconds while entered.

    New content takes effect once two checks in a row have read it, since the first may have come amid a write. A file
    that is missing or unusable changes only the log and the metrics: a slip lets nobody in and locks nobody out.

    Raises ``ConfigError`` if the file is unusable at the start.
    """

    def __init__(self, path: Path, metrics: PrometheusMetrics, *, interval_s: float = _CHECK_INTERVAL_S) -> None:
        super().__init__("api-keys")
        self._path = path
        self._metrics = metrics
        self._interval_s = interval_s
        self._keys = ApiKeys.read(path)
        self._found: ApiKeys | str = self._keys
        """What the last check found: keys, or why there are none."""
        self._logged = ""

    def authorise(self, authorization: str | None, needed: AccessScope) -> str:
        """As :meth:`ApiKeys.authorise`, with the keys now in force."""
        return self._keys.authorise(authorization, needed)

    def check(self) -> None:
        """Read the file once."""
        found: ApiKeys | str
        try:
            found = ApiKeys.read(self._path)
        except ConfigError as error:
            found = str(error)
        unchanged, self._found = found == self._found, found
        if unchanged:
            self._apply(found)

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            try:
                self.check()
            except Exception:  # any error at all: the next check must come all the same
                _log.exception("the check of the API keys failed; the keys read before remain in force")
                self._metrics.keys_checked(in_force=False)

    def _apply(self, found: ApiKeys | str) -> None:
        if isinstance(found, str):
            self._metrics.keys_checked(in_force=False)
            if found != self._logged:
                _log.error("%s; the keys read before remain in force", found)
            self._logged = found
            return
        self._metrics.keys_checked(in_force=True)
        if self._logged or found != self._keys:
            _log.warning("API keys were reloaded: %s", ", ".join(sorted(found.by_name)))
        self._logged, self._keys = "", found
