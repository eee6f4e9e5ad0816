"""Values in memory, bounded in bytes: the least recently used leaves first, and a change finds what it has to drop."""

import sys
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Generic, TypeVar

Key = tuple[str, str]
"""What kind of thing, and its identifier."""
V = TypeVar("V")

_BOOKKEEPING_BYTES = 350
"""Of one entry beside its value and its identifier: measured with tracemalloc."""
_REMEMBERED_MARKS = 65_536


@dataclass(frozen=True, slots=True)
class Fresh(Generic[V]):
    """A value just read, its size in bytes, the mark under which a change of it is told, and when it grows too old."""

    key: Key
    value: V
    size: int
    mark: bytes
    expires: float


class BoundedCache(Generic[V]):
    """Holds at most ``max_bytes``, its own bookkeeping included. Thread-safe.

    A value that was read while its change was being told must not be kept: who reads asks for the ``moment`` before
    the read and hands it in with what was read, and whatever was dropped since that moment is then passed over.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = Lock()
        self._kept: OrderedDict[Key, Fresh[V]] = OrderedDict()
        self._key_of: dict[bytes, Key] = {}
        self._bytes = 0
        self._moment = 0
        self._dropped: OrderedDict[bytes, int] = OrderedDict()
        self._oldest_remembered = 0
        """What was read at an earlier moment can no longer be checked, and is not kept."""

    @property
    def held_bytes(self) -> int:
        """Bytes held now."""
        return self._bytes

    @property
    def moment(self) -> int:
        """Changes with every drop."""
        return self._moment

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, keys: Sequence[Key], *, now: float) -> list[V | None]:
        """The value of each key, None where none is held that may still be used ``now``."""
        values: list[V | None] = []
        with self._lock:
            for key in keys:
                found = self._kept.get(key)
                if found is None or found.expires < now:
                    values.append(None)
                else:
                    self._kept.move_to_end(key)
                    values.append(found.value)
        return values

    def add(self, fresh: Iterable[Fresh[V]], *, moment: int, coldest: bool = False) -> int:
        """Keep what was read since ``moment``; how many had to leave for it.

        ``coldest``: as if it had been used before everything else that is held, so that nothing leaves for it but
        what was added in the same way later.
        """
        evicted = 0
        for one in fresh:  # which may be made only now: without the lock, so that nobody who reads waits for it
            with self._lock:
                if moment >= self._oldest_remembered and self._dropped.get(one.mark, -1) <= moment:
                    evicted += self._replace(one, coldest=coldest)
        return evicted

    def drop(self, marks: Collection[bytes] | None) -> int:
        """Forget what these marks stand for, or everything (None); how many were held."""
        with self._lock:
            self._moment += 1
            if marks is None:
                held = len(self._kept)
                self._kept.clear()
                self._key_of.clear()
                self._dropped.clear()
                self._bytes = 0
                self._oldest_remembered = self._moment
                return held
            for mark in marks:
                self._dropped[mark] = self._moment
                self._dropped.move_to_end(mark)
            while len(self._dropped) > _REMEMBERED_MARKS:
                _, self._oldest_remembered = self._dropped.popitem(last=False)
            return sum(self._remove(self._key_of.get(mark)) for mark in marks)

    def _replace(self, one: Fresh[V], *, coldest: bool) -> int:
        self._remove(self._key_of.get(one.mark))  # another key under the same mark must not hide this one
        self._remove(one.key)
        if _size(one) > self._max_bytes:
            return 0  # it would make everything else leave, and then leave itself
        self._kept[one.key] = one
        self._key_of[one.mark] = one.key
        self._bytes += _size(one)
        if coldest:
            self._kept.move_to_end(one.key, last=False)
        evicted = 0
        while self._bytes > self._max_bytes:
            self._remove(next(iter(self._kept)))
            evicted += 1
        return evicted

    def _remove(self, key: Key | None) -> bool:
        if key is None or (gone := self._kept.pop(key, None)) is None:
            return False
        del self._key_of[gone.mark]
        self._bytes -= _size(gone)
        return True


def _size(one: Fresh[V]) -> int:
    return one.size + sys.getsizeof(one.key[1]) + _BOOKKEEPING_BYTES
