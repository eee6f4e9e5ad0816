"""A thread fills the residents before the service is ready, then asks for changes so that no request has to."""

import gc
import heapq
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from types import TracebackType
from typing import Self

from ubert_model.errors import StateError, StoreError
from ubert_model.states import Namespace, Side, StateStore
from ubert_service.background import Background
from ubert_service.resident.namespaces import absence_of
from ubert_service.resident.residents import Residents

_ENTITIES_A_STEP = 200
_LEAST_ENTITY_BYTES = 4_096
"""A list and its states are hardly smaller, so more entities than the bound holds of these need not be ranked."""
_WAIT_FOR_STORE_S = 0.2
_LONGEST_PAUSE_S = 1.0

_log = logging.getLogger(__name__)

Entity = tuple[Side, str]


@dataclass
class _LeftOut:
    """Users and items that cannot be read: how many, and why the first of them cannot."""

    entities: int = 0
    example: str = ""

    def add(self, error: StateError) -> None:
        self.entities += 1
        self.example = self.example or str(error)


class ResidentsKeeper(Background):
    """While entered: warms ``residents``, most reviewed first, then keeps them true to the store.

    Warming ends when all entities or ``max_bytes`` are in, or ``warm_s`` after the store first answered. Until then
    ``warming`` tells how far it is. Who has a damaged list or state is left out: their requests are told so.
    """

    def __init__(
        self,
        residents: Residents,
        *,
        store: StateStore,
        namespace: Namespace,
        max_bytes: int,
        max_lag_s: float,
        warm_s: float,
    ) -> None:
        super().__init__("residents")
        self._residents = residents
        self._store = store
        self._namespace = namespace
        self._max_bytes = max_bytes
        self._pause_s = min(_LONGEST_PAUSE_S, max_lag_s / 2 or _LONGEST_PAUSE_S)
        self._warm_s = warm_s
        self.warming: str | None = None

    def __enter__(self) -> Self:
        if self._residents.keeps:
            self.warming = "warming has not begun" if self._warm_s else None
            self._residents.follower.kept_up = True
            super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._residents.follower.kept_up = False
        super().__exit__(kind, error, traceback)

    def _run(self) -> None:
        try:
            if self._warm_s:
                self._wait_for_states()
                self._warm()
        except (StoreError, StateError) as error:
            _log.warning("residents: warming ended early: %s", error)
        finally:
            # What was read is there to stay and holds no cycles: a collection that looks through it all only holds up
            # requests (56 ms where 116 MB are resident). What leaves is freed all the same.
            gc.freeze()
            self.warming = None
        while not self._ended.wait(self._pause_s):
            self._residents.follower.ask()

    def _wait_for_states(self) -> None:
        told = None
        while not self._ended.is_set():
            self._residents.follower.ask()
            if self._residents.follower.away is None:
                absence = absence_of(self._namespace, self._store.namespaces())
                if absence is None:
                    return
                if absence != told:
                    _log.warning("residents: %s", absence)
                    told = absence
            self.warming = "warming waits for the store and its states"
            self._ended.wait(_WAIT_FOR_STORE_S)

    def _warm(self) -> None:
        began = time.monotonic()
        # Half the time for the scan at most: where it is cut short, what it has seen is a random share of a server.
        ranked = self._most_reviewed(until=began + self._warm_s / 2)
        seen, left_out = 0, _LeftOut()
        try:
            for entities in _steps(ranked):
                if self._ended.is_set() or time.monotonic() > began + self._warm_s:
                    break
                room = self._load(entities, left_out)
                seen += len(entities)
                self._tell(seen, len(ranked))
                if not room:
                    break
        finally:
            if left_out.entities:
                _log.warning(
                    "residents: %d users and items cannot be read and were left out, such as: %s",
                    left_out.entities,
                    left_out.example,
                )
        _log.info(
            "residents: %(loaded)d of %(ranked)d entities, %(megabytes).0f MB, in %(seconds).1f s",
            {
                "loaded": seen - left_out.entities,
                "ranked": len(ranked),
                "megabytes": self._residents.held_bytes / 1e6,
                "seconds": time.monotonic() - began,
            },
        )

    def _most_reviewed(self, *, until: float) -> list[Entity]:
        self.warming = "warming: counting the reviews of users and items"
        lengths = takewhile(
            lambda _: time.monotonic() < until and not self._ended.is_set(),
            self._store.list_lengths(self._namespace.version),
        )
        ranked = heapq.nlargest(self._max_bytes // _LEAST_ENTITY_BYTES, lengths, key=lambda one: one[2])
        return [(side, entity) for side, entity, _ in ranked]

    def _load(self, entities: Sequence[Entity], left_out: _LeftOut) -> bool:
        """Read some; False once memory is full."""
        self._residents.follower.ask()
        try:
            self._read(entities)
        except StateError:
            # One of them has something damaged: each alone shows which.
            for entity in entities:
                try:
                    self._read([entity])
                except StateError as error:
                    left_out.add(error)
        return self._residents.held_bytes < 0.98 * self._max_bytes

    def _read(self, entities: Sequence[Entity]) -> None:
        users = [entity for side, entity in entities if side is Side.USER]
        items = [entity for side, entity in entities if side is Side.ITEM]
        lists = self._residents.review_lists(users, items, coldest=True)
        self._residents.states(
            (review.review_id for reviews in lists for review in reviews.whole.selected), coldest=True
        )

    def _tell(self, seen: int, ranked: int) -> None:
        told = f"warming: {seen} of {ranked} users and items, {self._residents.held_bytes / 1e6:.0f} MB"
        if seen // (50 * _ENTITIES_A_STEP) != (seen - _ENTITIES_A_STEP) // (50 * _ENTITIES_A_STEP):
            _log.info("residents: %s", told)
        self.warming = told


def _steps(ranked: Sequence[Entity]) -> Iterator[list[Entity]]:
    rest = iter(ranked)
    while step := list(islice(rest, _ENTITIES_A_STEP)):
        yield step
