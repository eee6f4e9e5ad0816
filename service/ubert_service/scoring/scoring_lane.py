"""Predictions as work that callers can share: whose pairs may go to the engine together."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from ubert_model.errors import DeviceUnavailableError, StoreUnavailableError
from ubert_service.errors import NotResidentError
from ubert_service.reading.histories import Pair, Reading
from ubert_service.scoring.engine import Prediction, ScoringEngine
from ubert_service.work.wanted import Wanted


@dataclass(frozen=True)
class ScoringLane:
    """Pairs of several requests in one call of the engine. Two requests share a call only if the same engine answers
    both (two bundles are never mixed) and both read the same reviews.
    """

    engine: ScoringEngine
    reading: Reading
    awaits_company: bool = True

    def answer(self, requests: Sequence[Sequence[Pair]], wanted: Wanted, /) -> list[list[Prediction]]:
        """The predictions of each request. Raises as :meth:`ScoringEngine.score` does."""
        predictions = iter(self.engine.score(list(chain.from_iterable(requests)), self.reading, wanted))
        return [[next(predictions) for _ in pairs] for pairs in requests]

    def fails_all(self, error: Exception, /) -> bool:
        """To ask a store or a device that is away once for each request would only make all of them wait longer.

        Not so where the store was not even asked: some of the requests may be answered from memory.
        """
        away = isinstance(error, StoreUnavailableError | DeviceUnavailableError)
        return away and not isinstance(error, NotResidentError)


def most_tokens(pairs: Sequence[Pair], max_rows: int) -> int:
    """What rating these pairs reads at most, in rows of states, if each side of a pair has up to ``max_rows``.

    How many there are is known only after the store was asked, which is too late to refuse.
    """
    return max_rows * (len({pair.user for pair in pairs}) + len({pair.item for pair in pairs}))
