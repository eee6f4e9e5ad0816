"""Walks over the ordered keys of an LMDB transaction."""

from collections.abc import Callable, Iterator
from itertools import groupby, islice

from ubert_model.states.keys import LmdbKeys
from ubert_model.states.lmdb_directory import Transaction

_LONGEST_KEY = 511
_LISTS_PER_PAGE = 1_000


def copied(value: memoryview | None) -> bytes | None:
    """LMDB's own bytes are gone when the transaction ends."""
    return None if value is None else bytes(value)


def values_under(transaction: Transaction, prefix: bytes) -> Iterator[memoryview]:
    return (value for _, value in items_from(transaction, prefix, prefix))


def sizes_from(transaction: Transaction, start: bytes, prefix: bytes) -> Iterator[tuple[bytes, int]]:
    """Keys under ``prefix`` from ``start`` on, each with the size of its value."""
    return ((key, len(value)) for key, value in items_from(transaction, start, prefix))


def items_from(transaction: Transaction, start: bytes, prefix: bytes) -> Iterator[tuple[bytes, memoryview]]:
    cursor = transaction.cursor()
    found = cursor.set_range(start)
    while found and (key := bytes(cursor.key())).startswith(prefix):
        yield key, cursor.value()
        found = cursor.next()


def heads_under(transaction: Transaction, prefix: bytes, head_of: Callable[[bytes], bytes]) -> Iterator[bytes]:
    """Each distinct head of the keys under ``prefix``, in order; one seek a head, whatever lies below it."""
    cursor = transaction.cursor()
    found = cursor.set_range(prefix)
    while found and (key := bytes(cursor.key())).startswith(prefix):
        head = head_of(key)
        yield head
        found = cursor.set_range(beyond(head))


def lengths_from(transaction: Transaction, *, lists: bytes, start: bytes) -> list[tuple[bytes, int]]:
    """The first lists from ``start`` on, each by the prefix of its lines, with how many lines it has."""
    lines = groupby(sizes_from(transaction, start, lists), lambda line: LmdbKeys.list_of(line[0]))
    return [(head, sum(1 for _ in same)) for head, same in islice(lines, _LISTS_PER_PAGE)]


def beyond(head: bytes) -> bytes:
    """Sorts after every key that begins with ``head``."""
    return head.ljust(_LONGEST_KEY, b"\xff")
