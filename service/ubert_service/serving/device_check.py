"""Whether a bundle's GPU computes, found out in the background: a GPU that hangs never returns from a call."""

import logging
import time
from types import TracebackType
from typing import Self

import numpy as np

from ubert_model.errors import DeviceUnavailableError
from ubert_model.running.background import BackgroundThread
from ubert_service.scoring.assembly import BatchSide, ScorerBatch
from ubert_service.scoring.runtime import ScoringRuntime

LONGEST_CALL_S = 5.0
"""A call that takes longer counts as hanging. It needs a millisecond; behind full batches, or while a GPU loads its
kernels, seconds. If load alone could reach this bound, it would take all replicas out of rotation together.
"""
PAUSE_S = 1.0

_log = logging.getLogger(__name__)


class DeviceCheck(BackgroundThread):
    """While entered, rates a pair time and again, one call after another; not on a CPU.

    Exit does not wait for a call that hangs.
    """

    def __init__(self, runtime: ScoringRuntime, *, state_dim: int) -> None:
        super().__init__("device-check")
        self._runtime = runtime
        self._batch = _smallest_batch(state_dim)
        self._called: float | None = None
        """When the running call began, by ``time.monotonic``."""
        self._found = None if runtime.device == "cpu" else "the device has not computed yet"

    @property
    def failure(self) -> str | None:
        """Why the device does not compute, as far as is known; None if it does."""
        called = self._called
        if called is not None and (seconds := time.monotonic() - called) > LONGEST_CALL_S:
            return f"device {self._runtime.device} has not answered for {seconds:.0f} s"
        return self._found

    def __enter__(self) -> Self:
        return self if self._runtime.device == "cpu" else super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread.is_alive():
            called = self._called or time.monotonic()
            self._thread.join(max(0.0, called + LONGEST_CALL_S - time.monotonic()))

    def _run(self) -> None:
        while not self._stop.is_set():
            self._called = time.monotonic()
            self._found = self._call()
            self._called = None
            self._stop.wait(PAUSE_S)

    def _call(self) -> str | None:
        try:
            self._runtime.score(self._batch)
        except DeviceUnavailableError as error:
            return str(error)
        except Exception as error:  # any error at all: the device must be called again all the same
            _log.exception("the check of the device failed")
            return f"the check of the device failed: {type(error).__name__}"
        return None


def _smallest_batch(dim: int) -> ScorerBatch:
    """One pair, with a row of zeros on each side."""
    first = np.zeros(1, dtype=np.int64)
    side = BatchSide(reviews=[[np.zeros((1, dim), dtype=np.float32)]], review_residuals=[np.zeros(1, dtype=np.float32)])
    return ScorerBatch(user=first, item=first, domain=first, user_side=side, item_side=side)
