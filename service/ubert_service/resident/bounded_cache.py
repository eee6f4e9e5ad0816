"""An LRU cache bounded in bytes, whose entries can be invalidated by the marks of a change feed."""

import sys
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Generic, TypeVar

Key = tuple[str, str]
"""The kind of thing, and its identifier."""
V = TypeVar("V")

_BOOKKEEPING_BYTES = 350
"""Per entry, beside its value and identifier; measured with tracemalloc."""
_MARK_BYTES = 170
"""Per remembered mark, the mark included; measured with tracemalloc."""
_REMEMBERED_MARKS = 65_536
_MARKS_PART = 8
"""Remembered marks take at most one part in so many of the bound."""


@dataclass(frozen=True, slots=True)
class CacheEntry(Generic[V]):
    """A value with its size in bytes, the mark by which the store's change feed names it, and its expiry time."""

    key: Key
    value: V
    size: int
    mark: bytes
    expires: float


class BoundedCache(Generic[V]):
    """Holds at most ``max_bytes``, its own bookkeeping included. Thread-safe.

    A value read while it was being invalidated must not be cached. So a reader takes the ``generation`` before it reads
    and passes it to :meth:`add`, which skips every entry that was dropped since.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._most_marks = min(_REMEMBERED_MARKS, max_bytes // (_MARKS_PART * _MARK_BYTES))
        self._lock = Lock()
        self._kept: OrderedDict[Key, CacheEntry[V]] = OrderedDict()
        self._key_of: dict[bytes, Key] = {}
        self._bytes = 0
        """Of the entries."""
        self._generation = 0
        self._dropped: OrderedDict[bytes, int] = OrderedDict()
        self._oldest_remembered = 0
        """Reads begun in an earlier generation can no longer be checked, so they are not cached."""

    @property
    def held_bytes(self) -> int:
        """Bytes held now."""
        return self._bytes + _MARK_BYTES * len(self._dropped)

    @property
    def generation(self) -> int:
        """Grows with every drop."""
        return self._generation

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, keys: Sequence[Key], *, now: float) -> list[V | None]:
        """The value of each key; None where none is held or it has expired by ``now``."""
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

    def add(self, fresh: Iterable[CacheEntry[V]], *, generation: int, coldest: bool = False) -> int:
        """Cache what was read since ``generation``; returns how many entries were evicted for it.

        ``coldest``: insert at the least recently used end, so that only entries added this way are evicted for it.
        """
        evicted = 0
        for entry in fresh:  # a generator may do its work here: outside the lock, so that no reader waits for it
            with self._lock:
                if generation >= self._oldest_remembered and self._dropped.get(entry.mark, -1) <= generation:
                    evicted += self._replace(entry, coldest=coldest)
        return evicted

    def drop(self, marks: Collection[bytes] | None) -> tuple[int, int]:
        """Remove the entries with these marks, or all (None).

        Returns how many of them were held, and how many others were evicted to make room for the marks themselves.
        """
        with self._lock:
            self._generation += 1
            if marks is None:
                held = len(self._kept)
                self._kept.clear()
                self._key_of.clear()
                self._dropped.clear()
                self._bytes = 0
                self._oldest_remembered = self._generation
                return held, 0
            for mark in marks:
                self._dropped[mark] = self._generation
                self._dropped.move_to_end(mark)
            while len(self._dropped) > self._most_marks:
                _, self._oldest_remembered = self._dropped.popitem(last=False)
            held = sum(self._remove(self._key_of.get(mark)) for mark in marks)
            return held, self._evict()

    def _replace(self, entry: CacheEntry[V], *, coldest: bool) -> int:
        self._remove(self._key_of.get(entry.mark))  # another key under the same mark must not hide this one
        self._remove(entry.key)
        if _size(entry) + _MARK_BYTES * len(self._dropped) > self._max_bytes:
            return 0  # it would evict everything else, and then itself
        self._kept[entry.key] = entry
        self._key_of[entry.mark] = entry.key
        self._bytes += _size(entry)
        if coldest:
            self._kept.move_to_end(entry.key, last=False)
        return self._evict()

    def _evict(self) -> int:
        evicted = 0
        while self.held_bytes > self._max_bytes:
            self._remove(next(iter(self._kept)))
            evicted += 1
        return evicted

    def _remove(self, key: Key | None) -> bool:
        if key is None or (gone := self._kept.pop(key, None)) is None:
            return False
        del self._key_of[gone.mark]
        self._bytes -= _size(gone)
        return True


def _size(entry: CacheEntry[V]) -> int:
    return entry.size + sys.getsizeof(entry.key[1]) + _BOOKKEEPING_BYTES
