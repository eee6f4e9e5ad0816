"""A shadow bundle rates a sample of what the live one has rated; differences are reported, never returned."""

import logging
from collections.abc import Sequence
from threading import Semaphore

from ubert_model.errors import UbertError
from ubert_service.reading.histories import Reading
from ubert_service.scoring.engine import Prediction
from ubert_service.serving.served import ServedBundle
from ubert_service.telemetry import ShadowTelemetry
from ubert_service.work.threads import started_pool

PAIRS_A_SAMPLE = 32
_MAX_PENDING = 8

_log = logging.getLogger(__name__)


class Shadowing:
    """Runs in a thread of its own, so that answers never wait for the shadow, whatever it costs or breaks.

    ``share``: the share of requests that is sampled, evenly. Not thread-safe: for the event loop alone.
    """

    def __init__(self, *, share: float, telemetry: ShadowTelemetry) -> None:
        self._share = share
        self._telemetry = telemetry
        self._due = 0.0
        self._failing = False
        self._slots = Semaphore(_MAX_PENDING)
        self._thread = started_pool(1, "ubert-shadow")

    def offer(self, shadow: ServedBundle, predictions: Sequence[Prediction], reading: Reading) -> None:
        """Sample a request and its answer, if its turn has come; returns at once."""
        if reading.inline is not None:
            return  # inline texts are encoded for the live bundle only
        self._due += self._share
        if self._due < 1:
            return
        self._due -= 1
        if not self._slots.acquire(blocking=False):
            self._telemetry.shadow_sampled(fate="dropped")
            return
        self._thread.submit(self._compare, shadow, list(predictions[:PAIRS_A_SAMPLE]), reading)

    def close(self) -> None:
        """Finish the few pending samples, and end the thread."""
        self._thread.shutdown()

    def _compare(self, shadow: ServedBundle, answered: Sequence[Prediction], reading: Reading) -> None:
        try:
            rated = shadow.sampling_engine.score([prediction.pair for prediction in answered], reading)
        except Exception as error:  # any error at all: no caller waits for this thread
            self._log_failure(error)
            self._telemetry.shadow_sampled(fate="failed")
        else:
            self._failing = False
            for live, shadowed in zip(answered, rated, strict=True):
                self._telemetry.shadow_differed(stars=abs(live.rating - shadowed.rating))
            self._telemetry.shadow_sampled(fate="compared")
        finally:
            self._slots.release()

    def _log_failure(self, error: Exception) -> None:
        """Log the first of consecutive failures: while the store is away, every sample fails."""
        if self._failing:
            return
        self._failing = True
        message = "the shadow bundle failed to rate a sample: %s; ubert_shadow_samples_total counts further failures"
        if isinstance(error, UbertError):
            _log.warning(message, error)
        else:
            _log.error(message, type(error).__name__, exc_info=error)
