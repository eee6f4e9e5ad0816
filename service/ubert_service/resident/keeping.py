"""A thread fills the residents before the service is ready, then asks for changes so that no request has to."""

import gc
import heapq
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from types import TracebackType
from typing import Self, TypeVar

import numpy as np

from ubert_model.errors import StateError, StoreError, UbertError
from ubert_model.running.background import Background
from ubert_model.states import Namespace, Side, StateStore
from ubert_service.reading.namespaces import absence_of
from ubert_service.resident.residents import Residents

_ENTITIES_A_STEP = 200
_ENTITIES_A_LOG_LINE = 10_000
_STEP_BYTES = 64 * 1024 * 1024
"""Of lists, and then of states, that are read together: meanwhile they are held beside what is resident."""
_LINE_BYTES = 300
"""Of a list, roughly."""
_LEAST_ENTITY_BYTES = 4_096
"""A list and its states are hardly smaller, so more entities than the bound holds of these need not be ranked."""
_WAIT_FOR_STORE_S = 0.2
_LONGEST_PAUSE_S = 1.0

_log = logging.getLogger(__name__)

Entity = tuple[Side, str]
Ranked = tuple[Side, str, int]
"""An entity and the length of its list."""
T = TypeVar("T")


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

    Warming ends when all entities or ``max_bytes`` are in, or ``warm_s`` after the store first answered, and goes on
    where the store fails meanwhile. Until then ``warming`` tells how far it is. Who has a damaged list or state is left
    out: their requests are told so.
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
        self._warm_until = float("inf")
        self._step_bytes = min(_STEP_BYTES, max_bytes // 4)
        self._warned = ""
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
        except UbertError as error:
            _log.warning("residents: warming ended early: %s", error)
        except Exception:  # whatever it was, changes have to be asked for all the same
            _log.exception("residents: warming ended early")
        finally:
            # What was read is there to stay and holds no cycles: a collection that looks through it all only holds up
            # requests (56 ms where 116 MB are resident). What leaves is freed all the same.
            gc.freeze()
            self.warming = None
        while not self._ended.wait(self._pause_s):
            self._residents.follower.ask()

    def _wait_for_states(self) -> None:
        while not self._ended.is_set():
            self._residents.follower.ask()
            if self._residents.follower.away is None:
                try:
                    hindrance = absence_of(self._namespace, self._store.namespaces())
                except StoreError as error:
                    hindrance = str(error)
                if hindrance is None:
                    return
                self._warn(hindrance)
            self.warming = "warming waits for the store and its states"
            self._ended.wait(_WAIT_FOR_STORE_S)

    def _warm(self) -> None:
        began = time.monotonic()
        self._warm_until = began + self._warm_s
        ranked = self._insist(self._most_reviewed)
        seen, left_out = 0, _LeftOut()
        try:
            for entities in self._steps(ranked):
                if self._ended.is_set() or time.monotonic() > self._warm_until:
                    break
                room = self._load(entities, left_out)
                self._tell(seen, seen + len(entities), len(ranked))
                seen += len(entities)
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

    def _insist(self, act: Callable[[], T]) -> T:
        """What ``act`` returns, once the store lets it. Raises its ``StoreError`` if warming has to end before."""
        while True:
            try:
                return act()
            except StoreError as error:
                if self._ended.wait(_WAIT_FOR_STORE_S) or time.monotonic() > self._warm_until:
                    raise
                self._warn(f"warming is held up: {error}")
            self._residents.follower.ask()

    def _most_reviewed(self) -> list[Ranked]:
        self.warming = "warming: counting the reviews of users and items"
        # Half the time for the scan at most: where it is cut short, what it has seen is a random share of a server.
        until = (time.monotonic() + self._warm_until) / 2
        lengths = takewhile(
            lambda _: time.monotonic() < until and not self._ended.is_set(),
            self._store.list_lengths(self._namespace.version),
        )
        return heapq.nlargest(self._max_bytes // _LEAST_ENTITY_BYTES, lengths, key=lambda one: one[2])

    def _steps(self, ranked: Iterable[Ranked]) -> Iterator[list[Entity]]:
        """Some at a time, whose lists fit into a step together, unless one alone does not."""
        step: list[Entity] = []
        lines, most = 0, self._step_bytes // _LINE_BYTES
        for side, entity, length in ranked:
            if step and (len(step) == _ENTITIES_A_STEP or lines + length > most):
                yield step
                step, lines = [], 0
            step.append((side, entity))
            lines += length
        if step:
            yield step

    def _load(self, entities: Sequence[Entity], left_out: _LeftOut) -> bool:
        """Read some; False once memory is full."""
        self._residents.follower.ask()
        room = True
        try:
            room = self._insist(partial(self._read, entities))
        except StateError:
            # One of them has something damaged: each alone shows which.
            for entity in entities:
                try:
                    room = self._insist(partial(self._read, [entity]))
                except StateError as error:
                    left_out.add(error)
        return room

    def _read(self, entities: Sequence[Entity]) -> bool:
        """Read their lists, then their states, as many at a time as fit into a step; False once memory is full."""
        users = [entity for side, entity in entities if side is Side.USER]
        items = [entity for side, entity in entities if side is Side.ITEM]
        lists = self._residents.review_lists(users, items, warming=True)
        token_bytes = self._namespace.state_dim * np.dtype(np.float32).itemsize
        sizes = {one.review_id: one.rows * token_bytes for reviews in lists for one in reviews.whole.selected}
        rest = deque(sizes)
        while rest:
            room = self._max_bytes - self._residents.held_bytes
            together = [rest.popleft()]
            size = sizes[together[0]]
            if size > room:
                return False
            while rest and size + sizes[rest[0]] <= min(room, self._step_bytes):
                size += sizes[rest[0]]
                together.append(rest.popleft())
            self._residents.states(together, warming=True)
        return self._residents.held_bytes < 0.98 * self._max_bytes

    def _tell(self, before: int, seen: int, ranked: int) -> None:
        told = f"warming: {seen} of {ranked} users and items, {self._residents.held_bytes / 1e6:.0f} MB"
        if seen // _ENTITIES_A_LOG_LINE != before // _ENTITIES_A_LOG_LINE:
            _log.info("residents: %s", told)
        self.warming = told

    def _warn(self, found: str) -> None:
        """Once, not each time that it is found again."""
        if found != self._warned:
            _log.warning("residents: %s", found)
        self._warned = found
