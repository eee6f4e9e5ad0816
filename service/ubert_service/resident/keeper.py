"""A background thread warms the cache before the service is ready, then polls for changes so that no request has to."""

import gc
import heapq
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import takewhile
from types import TracebackType
from typing import Self, TypeVar

import numpy as np

from ubert_model.errors import StateError, StoreError, UbertError
from ubert_model.review import Side
from ubert_model.running.background import BackgroundThread
from ubert_model.states import Namespace, StateStore
from ubert_service.reading.namespaces import Absence, absence_of
from ubert_service.resident.residents import Residents

_BATCH_ENTITIES = 200
_ENTITIES_PER_LOG_LINE = 10_000
_BATCH_BYTES = 64 * 1024 * 1024
"""Bytes of lists, then of states, that are read in one batch: while it is decoded, they come on top of the cache."""
_ENTRY_BYTES = 300
"""Roughly the bytes of one entry of a list."""
_LEAST_ENTITY_BYTES = 4_096
"""Hardly any entity takes less, with its list and states; no more are ranked than the cache could hold at this size."""
_WAIT_FOR_STORE_S = 0.2
_LONGEST_PAUSE_S = 1.0

_log = logging.getLogger(__name__)

Entity = tuple[Side, str]
Ranked = tuple[Side, str, int]
"""An entity and the length of its review list."""
T = TypeVar("T")


class ResidentsKeeper(BackgroundThread):
    """While entered: warms ``residents``, most reviewed first, then keeps them coherent with the store.

    Warming ends when all entities or ``max_bytes`` are loaded, or ``warm_s`` after the store first answered; it
    survives failures of the store. Until then ``warming`` describes its progress. Entities with a damaged list or state
    are skipped; requests for them get the error.
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
        self._batch_bytes = min(_BATCH_BYTES, max_bytes // 4)
        self._warned = ""
        self.warming: str | None = None

    def __enter__(self) -> Self:
        if self._residents.keeps:
            self.warming = "warming has not started" if self._warm_s else None
            self._residents.follower.polled = True
            super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._residents.follower.polled = False
        super().__exit__(kind, error, traceback)

    def _run(self) -> None:
        try:
            if self._warm_s:
                self._wait_for_states()
                self._warm()
        except UbertError as error:
            _log.warning("residents: warming ended early: %s", error)
        except Exception:  # any error at all: changes must be polled all the same
            _log.exception("residents: warming ended early")
        finally:
            # The cache is long-lived and free of cycles: garbage collections that scan it would only delay requests
            # (56 ms with 116 MB resident). Evicted entries are freed by reference counting all the same.
            gc.freeze()
            self.warming = None
        while not self._stop.wait(self._pause_s):
            self._residents.follower.poll()

    def _wait_for_states(self) -> None:
        while not self._stop.is_set():
            self._residents.follower.poll()
            if self._residents.follower.away is None:
                obstacle: Absence | StoreError | None
                try:
                    obstacle = absence_of(self._namespace, self._store.namespaces())
                except StoreError as error:
                    obstacle = error
                if obstacle is None:
                    return
                self._warn_once(str(obstacle))
            self.warming = "warming waits for the store and its states"
            self._stop.wait(_WAIT_FOR_STORE_S)

    def _warm(self) -> None:
        began = time.monotonic()
        self._warm_until = began + self._warm_s
        ranked = self._retry(self._most_reviewed)
        seen = 0
        unreadable: list[str] = []
        try:
            for entities in self._batches(ranked):
                if self._stop.is_set() or time.monotonic() > self._warm_until:
                    break
                room = self._load(entities, unreadable)
                self._report(seen, seen + len(entities), len(ranked))
                seen += len(entities)
                if not room:
                    break
        finally:
            if unreadable:
                skipped = "residents: skipped %d users and items that cannot be read, such as: %s"
                _log.warning(skipped, len(unreadable), unreadable[0])
        _log.info(
            "residents: loaded %d of %d users and items, %.0f MB, in %.1f s",
            *(seen - len(unreadable), len(ranked), self._residents.held_bytes / 1e6, time.monotonic() - began),
        )

    def _retry(self, read: Callable[[], T]) -> T:
        """Call ``read`` until the store answers. Raises its ``StoreError`` if the time for warming ends first."""
        while True:
            try:
                return read()
            except StoreError as error:
                if self._stop.wait(_WAIT_FOR_STORE_S) or time.monotonic() > self._warm_until:
                    raise
                self._warn_once(f"warming is delayed: {error}")
            self._residents.follower.poll()

    def _most_reviewed(self) -> list[Ranked]:
        self.warming = "warming: counting the reviews of users and items"
        # The scan gets at most half of the time left; cut short, it has seen a random share of a server.
        until = (time.monotonic() + self._warm_until) / 2
        lengths = takewhile(
            lambda _: time.monotonic() < until and not self._stop.is_set(),
            self._store.list_lengths(self._namespace.version),
        )
        return heapq.nlargest(self._max_bytes // _LEAST_ENTITY_BYTES, lengths, key=lambda ranked: ranked[2])

    def _batches(self, ranked: Iterable[Ranked]) -> Iterator[list[Entity]]:
        """Consecutive entities whose lists fit into a batch, or one whose list alone does not."""
        batch: list[Entity] = []
        entries, most = 0, self._batch_bytes // _ENTRY_BYTES
        for side, entity, length in ranked:
            if batch and (len(batch) == _BATCH_ENTITIES or entries + length > most):
                yield batch
                batch, entries = [], 0
            batch.append((side, entity))
            entries += length
        if batch:
            yield batch

    def _load(self, entities: Sequence[Entity], unreadable: list[str]) -> bool:
        """Read a batch into the cache; False once memory is full. Damaged entities are skipped, and why is appended to
        ``unreadable``.
        """
        self._residents.follower.poll()
        try:
            return self._retry(partial(self._read, entities))
        except StateError as error:
            if len(entities) == 1:
                unreadable.append(str(error))
                return True
        # Something of one of them is damaged: reading each alone shows which.
        return all(self._load([entity], unreadable) for entity in entities)

    def _read(self, entities: Sequence[Entity]) -> bool:
        """Read their lists, then their states, as many at a time as a batch holds; False once memory is full."""
        users = [entity for side, entity in entities if side is Side.USER]
        items = [entity for side, entity in entities if side is Side.ITEM]
        lists = self._residents.review_lists(users, items, warming=True)
        token_bytes = self._namespace.state_dim * np.dtype(np.float32).itemsize
        sizes = {entry.review_id: entry.rows * token_bytes for each in lists for entry in each.full_history.selected}
        rest = deque(sizes)
        while rest:
            room = self._max_bytes - self._residents.held_bytes
            together = [rest.popleft()]
            size = sizes[together[0]]
            if size > room:
                return False
            while rest and size + sizes[rest[0]] <= min(room, self._batch_bytes):
                size += sizes[rest[0]]
                together.append(rest.popleft())
            self._residents.states(together, warming=True)
        return self._residents.held_bytes < 0.98 * self._max_bytes

    def _report(self, before: int, seen: int, ranked: int) -> None:
        self.warming = f"warming: {seen} of {ranked} users and items, {self._residents.held_bytes / 1e6:.0f} MB"
        if seen // _ENTITIES_PER_LOG_LINE != before // _ENTITIES_PER_LOG_LINE:
            _log.info("residents: %s", self.warming)

    def _warn_once(self, problem: str) -> None:
        """Log a problem unless it was the last one logged."""
        if problem != self._warned:
            _log.warning("residents: %s", problem)
        self._warned = problem
