"""The lane of predictions: which requests may share a call of the engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from ubert_model.errors import DeviceUnavailableError, StoreUnavailableError
from ubert_service.errors import NotResidentError
from ubert_service.reading.histories import Pair, Reading
from ubert_service.scoring.engine import Prediction, ScoringEngine
from ubert_service.work.admission import WorkKind
from ubert_service.work.cancellation import Cancelled


@dataclass(frozen=True)
class ScoringLane:
    """Scores the pairs of several requests in one call of the engine. Requests share a call only if they have the same
    engine (two bundles are never mixed) and read the same reviews.
    """

    engine: ScoringEngine
    reading: Reading
    kind: WorkKind = "scoring"
    waits_for_batch: bool = True

    def answer(self, requests: Sequence[Sequence[Pair]], cancelled: Cancelled, /) -> list[list[Prediction]]:
        """The predictions of each request. Raises as :meth:`ScoringEngine.score` does."""
        predictions = iter(self.engine.score(list(chain.from_iterable(requests)), self.reading, cancelled))
        return [[next(predictions) for _ in pairs] for pairs in requests]

    def is_shared_failure(self, error: Exception, /) -> bool:
        """True if the store or the device is away: asking it again per request would only make all of them wait longer.

        Not if the store was never asked (``NotResidentError``): memory may hold what some of the requests need.
        """
        away = isinstance(error, StoreUnavailableError | DeviceUnavailableError)
        return away and not isinstance(error, NotResidentError)


def max_tokens_read(pairs: Sequence[Pair], max_rows: int) -> int:
    """The most rows of states that rating these pairs can read, if each side of a pair has up to ``max_rows``.

    The exact number is known only once the store has been asked, which is too late to refuse the request.
    """
    return max_rows * (len({pair.user for pair in pairs}) + len({pair.item for pair in pairs}))
