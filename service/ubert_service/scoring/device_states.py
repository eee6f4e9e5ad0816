"""A device-side copy of the resident states: each array is copied once, and dropped when the residents drop theirs.

Imported on demand only, like ``torch_runtime``.
"""

import logging
import weakref
from collections import OrderedDict, deque
from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import partial
from itertools import chain
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ubert_model.states import FloatMatrix
from ubert_service.scoring.assembly import BatchSide

_FIRST_ROWS = 16_384

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Copy:
    """The device rows of an array, (rows,), and a weak reference to the array itself."""

    array: "weakref.ref[FloatMatrix]"
    rows: NDArray[np.int64]


class DeviceStates:
    """One tensor of rows on a device, from which sides are gathered by row number. Thread-safe.

    A copy lives as long as the host array that it was made from: whatever the residents drop, because a write changed
    it or memory ran short, cannot be read here either. Beyond ``max_bytes`` the least recently used copies are evicted.
    """

    def __init__(self, *, dim: int, device: torch.device, max_bytes: int) -> None:
        self._max_rows = max_bytes // (dim * torch.float32.itemsize)
        self._states = torch.zeros((min(_FIRST_ROWS, self._max_rows), dim), device=device)  # (C, D)
        self._free = list(range(len(self._states)))
        self._copies: OrderedDict[int, _Copy] = OrderedDict()  # by id() of the array; least recently used first
        self._dead: deque[tuple[int, weakref.ref[FloatMatrix]]] = deque()
        self._lock = Lock()

    @property
    def held_rows(self) -> int:
        """Rows in use by copies."""
        with self._lock:
            self._free_dead()
            return len(self._states) - len(self._free)

    def gather(self, side: BatchSide) -> Tensor:
        """The side's states, (B, N, D); entries where its mask is False are finite but arbitrary.

        Raises ``torch.OutOfMemoryError``.
        """
        with self._lock:
            self._free_dead()
            if not self._copy_missing(list(chain.from_iterable(side.reviews))):
                return torch.from_numpy(side.states).to(self._states.device)
            index = np.zeros(side.mask.shape, dtype=np.int64)  # (B, N)
            for row, (reviews, length) in enumerate(zip(side.reviews, side.lengths.tolist(), strict=True)):
                np.concatenate([self._copies[id(review)].rows for review in reviews], out=index[row, :length])
            # Inside the lock, so that the device runs this before any later copy into the same rows.
            return self._states[torch.from_numpy(index).to(self._states.device)]

    def _copy_missing(self, arrays: Sequence[FloatMatrix]) -> bool:
        """Copy the arrays that have no copy yet; False if they do not all fit."""
        by_id = {id(array): array for array in arrays}
        fresh = {}
        for key, array in by_id.items():
            if self._holds(key, array):
                self._copies.move_to_end(key)
            else:
                fresh[key] = array
        needed = sum(map(len, fresh.values()))
        if not needed:
            return True
        kept = by_id.keys() - fresh.keys()
        wanted = needed + sum(len(by_id[key]) for key in kept)
        if len(self._free) < needed and wanted <= self._max_rows:
            self._grow(needed)
        if wanted > self._max_rows:
            return False
        self._evict(needed, kept)
        rows = np.array(self._free[-needed:], dtype=np.int64)
        states = torch.from_numpy(np.concatenate(list(fresh.values())))
        device = self._states.device
        self._states.index_copy_(0, torch.from_numpy(rows).to(device), states.to(device))
        del self._free[-needed:]  # only now: if the device is out of memory, the rows stay free
        ends = np.cumsum([len(array) for array in fresh.values()])
        for (key, array), array_rows in zip(fresh.items(), np.split(rows, ends[:-1]), strict=True):
            self._copies[key] = _Copy(weakref.ref(array, partial(self._note_dead, key)), array_rows)
        return True

    def _holds(self, key: int, array: FloatMatrix) -> bool:
        copy = self._copies.get(key)
        if copy is None or copy.array() is array:
            return copy is not None
        self._drop(key)  # of a dead array, whose address this one has been given
        return False

    def _grow(self, needed: int) -> None:
        """Grow the tensor by ``needed`` rows or more, up to the bound, which becomes its size if the device has no
        memory for that: asking again with every request would fail each.
        """
        held = len(self._states)
        rows = min(self._max_rows, 2 * (held + needed))
        if rows == held:
            return
        try:
            grown = self._states.new_zeros((rows, self._states.shape[1]))
        except torch.OutOfMemoryError as error:
            _log.warning("states of %d rows do not fit on the device, %d stay: %s", rows, held, error)
            self._max_rows = held
            return
        grown[:held] = self._states
        self._states = grown
        self._free.extend(range(held, rows))

    def _evict(self, needed: int, kept: Set[int]) -> None:
        """Drop least recently used copies except ``kept`` until ``needed`` rows are free."""
        for key in [key for key in self._copies if key not in kept]:
            if needed <= len(self._free):
                return
            self._drop(key)

    def _note_dead(self, key: int, array: "weakref.ref[FloatMatrix]") -> None:
        self._dead.append((key, array))  # only this: it may be called at any time, also inside the lock

    def _free_dead(self) -> None:
        while self._dead:
            key, array = self._dead.popleft()
            copy = self._copies.get(key)
            if copy is not None and copy.array is array:
                self._drop(key)

    def _drop(self, key: int) -> None:
        self._free.extend(self._copies.pop(key).rows.tolist())
