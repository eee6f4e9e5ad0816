"""States that stay on the device: each array of the residents is copied there once, and lives there as long as here.

Like torch_runtime, imported on demand only.
"""

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


@dataclass(frozen=True, slots=True)
class _Copy:
    """Where an array's rows lie, (rows,), and the array, as long as somebody else keeps it."""

    array: "weakref.ref[FloatMatrix]"
    rows: NDArray[np.int64]


class DeviceStates:
    """One tensor of rows on a device, at most ``max_bytes``, from which a side is gathered by row numbers. Thread-safe.

    A copy belongs to the array object that it was made from and goes with it: what the residents drop, because a write
    changed it or memory ran short, cannot be read here either. Beyond ``max_bytes`` the least recently used go.
    """

    def __init__(self, *, dim: int, device: torch.device, max_bytes: int) -> None:
        self._max_rows = max_bytes // (dim * torch.float32.itemsize)
        self._states = torch.zeros((min(_FIRST_ROWS, self._max_rows), dim), device=device)  # (C, D)
        self._free = list(range(len(self._states)))
        self._copies: OrderedDict[int, _Copy] = OrderedDict()  # by id() of the array; least recently used first
        self._gone: deque[tuple[int, weakref.ref[FloatMatrix]]] = deque()
        self._lock = Lock()

    @property
    def held_rows(self) -> int:
        """Rows that belong to a copy."""
        with self._lock:
            self._forget_gone()
            return len(self._states) - len(self._free)

    def gather(self, side: BatchSide) -> Tensor:
        """The side's states, (B, N, D); what stands where its mask is False is finite and means nothing.

        Raises ``torch.OutOfMemoryError``.
        """
        with self._lock:
            self._forget_gone()
            if not self._bring(list(chain.from_iterable(side.reviews))):
                return torch.from_numpy(side.states).to(self._states.device)
            index = np.zeros(side.mask.shape, dtype=np.int64)  # (B, N)
            for row, (reviews, length) in enumerate(zip(side.reviews, side.lengths.tolist(), strict=True)):
                np.concatenate([self._copies[id(review)].rows for review in reviews], out=index[row, :length])
            # Within the lock: a later copy into the same rows then comes later in the device's own order, too.
            return self._states[torch.from_numpy(index).to(self._states.device)]

    def _bring(self, arrays: Sequence[FloatMatrix]) -> bool:
        """See that all arrays have a copy; False if they are too many for that."""
        wanted = {id(array): array for array in arrays}
        fresh = {}
        for key, array in wanted.items():
            if self._holds(key, array):
                self._copies.move_to_end(key)
            else:
                fresh[key] = array
        needed = sum(map(len, fresh.values()))
        if not needed:
            return True
        kept = wanted.keys() - fresh.keys()
        if needed + sum(len(wanted[key]) for key in kept) > self._max_rows:
            return False
        self._make_room(needed, kept)
        rows = np.array(self._free[-needed:], dtype=np.int64)
        states = torch.from_numpy(np.concatenate(list(fresh.values())))
        device = self._states.device
        self._states.index_copy_(0, torch.from_numpy(rows).to(device), states.to(device))
        del self._free[-needed:]  # not before: a device without memory for the copy leaves them free
        ends = np.cumsum([len(array) for array in fresh.values()])
        for (key, array), own in zip(fresh.items(), np.split(rows, ends[:-1]), strict=True):
            self._copies[key] = _Copy(weakref.ref(array, partial(self._note_gone, key)), own)
        return True

    def _holds(self, key: int, array: FloatMatrix) -> bool:
        copy = self._copies.get(key)
        if copy is None or copy.array() is array:
            return copy is not None
        self._forget(key)  # of an array that has gone, whose address this one has now
        return False

    def _make_room(self, needed: int, kept: Set[int]) -> None:
        """Grow, and then let the least recently used go, but for those ``kept``, until ``needed`` rows are free."""
        held = len(self._states)
        if needed > len(self._free) and held < self._max_rows:
            rows = min(self._max_rows, 2 * (held + needed))
            grown = self._states.new_zeros((rows, self._states.shape[1]))
            grown[:held] = self._states
            self._states = grown
            self._free.extend(range(held, rows))
        for key in [key for key in self._copies if key not in kept]:
            if needed <= len(self._free):
                return
            self._forget(key)

    def _note_gone(self, key: int, array: "weakref.ref[FloatMatrix]") -> None:
        self._gone.append((key, array))  # no more than that: this may be called at any moment, within the lock, too

    def _forget_gone(self) -> None:
        while self._gone:
            key, array = self._gone.popleft()
            copy = self._copies.get(key)
            if copy is not None and copy.array is array:
                self._forget(key)

    def _forget(self, key: int) -> None:
        self._free.extend(self._copies.pop(key).rows.tolist())
