"""Ranges of the ordered keys of an LMDB transaction: scanned, and deleted."""

from collections.abc import Callable, Iterator
from itertools import groupby, islice

from ubert_model.states.keys import LmdbKeys
from ubert_model.states.lmdb_directory import Transaction

_LONGEST_KEY = 511
_LISTS_PER_PAGE = 1_000


def copied(value: memoryview | None) -> bytes | None:
    """A copy of a value, which outlives the transaction; LMDB's own memory does not."""
    return None if value is None else bytes(value)


def values_under(transaction: Transaction, prefix: bytes) -> Iterator[memoryview]:
    return (value for _, value in items_from(transaction, prefix, prefix))


def sizes_from(transaction: Transaction, start: bytes, prefix: bytes) -> Iterator[tuple[bytes, int]]:
    """The keys from ``start`` on that begin with ``prefix``, each with the size of its value."""
    return ((key, len(value)) for key, value in items_from(transaction, start, prefix))


def items_from(transaction: Transaction, start: bytes, prefix: bytes) -> Iterator[tuple[bytes, memoryview]]:
    cursor = transaction.cursor()
    found = cursor.set_range(start)
    while found and (key := bytes(cursor.key())).startswith(prefix):
        yield key, cursor.value()
        found = cursor.next()


def distinct_prefixes(transaction: Transaction, prefix: bytes, prefix_of: Callable[[bytes], bytes]) -> Iterator[bytes]:
    """The distinct values of ``prefix_of`` over the keys that begin with ``prefix``, in order; one seek each."""
    cursor = transaction.cursor()
    found = cursor.set_range(prefix)
    while found and (key := bytes(cursor.key())).startswith(prefix):
        longer = prefix_of(key)
        yield longer
        found = cursor.set_range(after_prefix(longer))


def lengths_from(transaction: Transaction, *, lists: bytes, start: bytes) -> list[tuple[bytes, int]]:
    """A page of lists from ``start`` on: the prefix of each list's lines, and how many lines it has."""
    lines = groupby(sizes_from(transaction, start, lists), lambda line: LmdbKeys.list_of(line[0]))
    return [(prefix, sum(1 for _ in same)) for prefix, same in islice(lines, _LISTS_PER_PAGE)]


def delete_range(transaction: Transaction, start: bytes, end: bytes, limit: int | None = None) -> list[bytes]:
    """Delete the keys from ``start`` on that are less than ``end``, or the first ``limit`` of them; returns them."""
    deleted: list[bytes] = []
    cursor = transaction.cursor()
    found = cursor.set_range(start)
    while found and len(deleted) != limit and (key := bytes(cursor.key())) < end:
        deleted.append(key)
        found = cursor.delete()
    return deleted


def after_prefix(prefix: bytes) -> bytes:
    """A key that sorts after every key that begins with ``prefix``."""
    return prefix.ljust(_LONGEST_KEY, b"\xff")
