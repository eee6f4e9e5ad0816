"""A shadow bundle rates a sample of what the live one has rated; the differences are reported and never returned."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Semaphore

from ubert_model.errors import UbertError
from ubert_service.reading.histories import Reading
from ubert_service.scoring.engine import Prediction
from ubert_service.serving.served import ServedBundle
from ubert_service.telemetry import ShadowTelemetry

PAIRS_A_SAMPLE = 32
_WAITING = 8

_log = logging.getLogger(__name__)


class Shadowing:
    """Works in one thread of its own, so that whatever the shadow costs or breaks, answers do not wait for it.

    ``share``: the part of the requests that is sampled, evenly. Not thread-safe: for the event loop alone.
    """

    def __init__(self, *, share: float, telemetry: ShadowTelemetry) -> None:
        self._share = share
        self._telemetry = telemetry
        self._owed = 0.0
        self._failing = False
        self._places = Semaphore(_WAITING)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ubert-shadow")

    def offer(self, shadow: ServedBundle, predictions: Sequence[Prediction], reading: Reading) -> None:
        """Perhaps compare what a request was answered; returns at once."""
        if reading.brought is not None:
            return  # it was encoded for the live bundle alone
        self._owed += self._share
        if self._owed < 1:
            return
        self._owed -= 1
        if not self._places.acquire(blocking=False):
            self._telemetry.shadow_sampled(fate="dropped")
            return
        self._thread.submit(self._compare, shadow, list(predictions[:PAIRS_A_SAMPLE]), reading)

    def close(self) -> None:
        """Finish the few samples that wait, and end the thread."""
        self._thread.shutdown()

    def _compare(self, shadow: ServedBundle, answered: Sequence[Prediction], reading: Reading) -> None:
        try:
            rated = shadow.engine.score([one.pair for one in answered], reading)
        except Exception as error:  # whatever it was, nobody waits for this thread who could be told
            self._tell(error)
            self._telemetry.shadow_sampled(fate="failed")
        else:
            self._failing = False
            for one, other in zip(answered, rated, strict=True):
                self._telemetry.shadow_differed(stars=abs(one.rating - other.rating))
            self._telemetry.shadow_sampled(fate="compared")
        finally:
            self._places.release()

    def _tell(self, error: Exception) -> None:
        """Of failures in a row the first: while the store is away there are as many as samples."""
        if self._failing:
            return
        self._failing = True
        told = "the shadow bundle could not rate a sample: %s; until it can, ubert_shadow_samples_total counts more"
        if isinstance(error, UbertError):
            _log.warning(told, error)
        else:
            _log.error(told, type(error).__name__, exc_info=error)
