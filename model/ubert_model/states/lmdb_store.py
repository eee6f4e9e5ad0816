"""States in a local directory, by LMDB: for one machine, with no server to run.

Several processes may read while one writes. A transaction is atomic and on disk when it returns.
"""

import errno
import shutil
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby, islice
from operator import attrgetter
from pathlib import Path
from threading import Lock
from typing import TypeAlias, TypeVar

import lmdb

from ubert_model.errors import StoreError, StoreFullError
from ubert_model.states.changes import (
    REMEMBERED_CHANGES,
    Changes,
    Revision,
    entity_mark,
    marks_of,
    pack_marks,
    state_mark,
    unpack_marks,
)
from ubert_model.states.keys import LmdbKeys, Side
from ubert_model.states.records import (
    check_same_namespace,
    check_state_size,
    dropped_meanwhile,
    is_damaged,
    pack_candidates,
    pack_line,
    pack_namespace,
    pack_shard,
    pack_text,
    unpack_candidates,
    unpack_line,
    unpack_namespace,
    unpack_shard,
    unpack_text,
)
from ubert_model.states.review import ReviewEntry
from ubert_model.states.store import FinishedShard, Namespace

T = TypeVar("T")
_Transaction: TypeAlias = "lmdb.Transaction[memoryview]"  # generic in the stubs alone

_LONGEST_KEY = 511
_KEYS_PER_DROP = 10_000
_KEYS_PER_SCAN = 10_000
_LISTS_PER_PAGE = 1_000
_ROOM_TO_WRITE = 1 << 20
"""Bytes: a disk with less is full for every transaction but the smallest."""
_RESTORE = "put a copy of the whole directory in its place, or remove it and run `ubert precompute`"
_DAMAGED = (lmdb.CorruptedError, lmdb.InvalidError, lmdb.PageNotFoundError)
_LEFT_UNWRITTEN = 1 << 20
"""Bytes at the end of the file that LMDB may count and not write: what a transaction has taken and freed again."""
_HELD_UNTIL = struct.Struct("<d")
"""Seconds since 1970: whoever holds and whoever drops share the machine, so its clock."""


class LmdbStore:
    """A ``StateStore`` in ``directory``, which is created if it is not there.

    ``initial_map_bytes`` is address space, not disk: the map doubles whenever it is full. Thread-safe, one
    transaction at a time. A process opens a directory once, and never uses it across a fork.

    Raises ``StoreError`` if the directory cannot be used.
    """

    def __init__(self, directory: Path, *, initial_map_bytes: int = 1 << 30) -> None:
        self._directory = directory
        # LMDB may only move its map while this process has no transaction.
        self._turn = Lock()
        with self._explained():
            if directory.is_file():
                raise StoreError(f"{directory} is a file and no state store: give a directory")
            directory.mkdir(parents=True, exist_ok=True)
            _require_own(directory)
            self._environment = lmdb.open(str(directory), map_size=initial_map_bytes, max_readers=512)
            self._require_whole()
            # A killed reader's slot would keep the pages it saw from ever being used again.
            self._environment.reader_check()

    @property
    def local(self) -> bool:
        return True

    def open_namespace(self, namespace: Namespace) -> None:
        key, packed = LmdbKeys(namespace.version).description, pack_namespace(namespace)

        def declare(transaction: _Transaction) -> None:
            stored = _copied(transaction.get(key))
            if stored is None or is_damaged(unpack_namespace, stored):
                transaction.put(key, packed)
            else:
                check_same_namespace(namespace, stored)

        self._transact(declare, write=True)

    def namespaces(self) -> list[Namespace]:
        def described(transaction: _Transaction) -> list[Namespace]:
            heads = _heads(transaction, b"", lambda key: key[: LmdbKeys.VERSION_BYTES])
            versions = [head.hex() for head in heads]
            descriptions = [_copied(transaction.get(LmdbKeys(version).description)) for version in versions]
            found = zip(descriptions, versions, strict=True)
            return [unpack_namespace(packed, version) for packed, version in found if packed is not None]

        return self._transact(described)

    def drop_namespace(self, version: str) -> int:
        keys = LmdbKeys(version)
        removed = 0

        def drop_some(transaction: _Transaction) -> list[bytes]:
            dropped: list[bytes] = []
            cursor = transaction.cursor()
            found = cursor.set_range(keys.everything)
            while found and len(dropped) < _KEYS_PER_DROP:
                key = bytes(cursor.key())
                if not key.startswith(keys.everything):
                    break
                dropped.append(key)
                found = cursor.delete()
            return dropped

        while dropped := self._transact(drop_some, write=True):
            removed += sum(key.startswith(keys.states) for key in dropped)
        return removed

    def put(
        self, version: str, reviews: Sequence[tuple[ReviewEntry, bytes]], texts: Sequence[tuple[str, str]] = ()
    ) -> Revision:
        keys = LmdbKeys(version)

        def write(transaction: _Transaction) -> Revision:
            for entry, state in reviews:
                check_state_size(entry.review_id, state)
                transaction.put(keys.state(entry.review_id), state)
                transaction.delete(keys.text(entry.review_id))
            for review_id, text in texts:
                transaction.put(keys.text(review_id), pack_text(text))
            return _put_lines(transaction, keys, [entry for entry, _ in reviews])

        return self._transact(write, write=True)

    def put_lines(self, version: str, entries: Sequence[ReviewEntry]) -> Revision:
        keys = LmdbKeys(version)
        return self._transact(lambda transaction: _put_lines(transaction, keys, entries), write=True)

    def lines(self, version: str, side: Side, entity: str) -> dict[bytes, bytes]:
        head = LmdbKeys(version).reviews(side, entity)
        return self._transact(
            lambda transaction: {key[len(head) :]: bytes(line) for key, line in _items(transaction, head, head)}
        )

    def remove_lines(self, version: str, side: Side, entity: str, names: Sequence[bytes]) -> Revision:
        keys = LmdbKeys(version)
        head = keys.reviews(side, entity)

        def remove(transaction: _Transaction) -> Revision:
            for name in names:
                transaction.delete(head + name)
            return _announce(transaction, keys, [entity_mark(side, entity)])

        return self._transact(remove, write=True)

    def delete(self, version: str, entries: Sequence[ReviewEntry]) -> Revision:
        keys = LmdbKeys(version)

        def remove(transaction: _Transaction) -> Revision:
            for entry in entries:
                for key in (*_keys_of(keys, entry), keys.text(entry.review_id)):
                    transaction.delete(key)
            return _announce(transaction, keys, marks_of(entries))

        return self._transact(remove, write=True)

    def put_texts(self, version: str, texts: Sequence[tuple[str, str]]) -> None:
        keys = LmdbKeys(version)

        def write(transaction: _Transaction) -> None:
            for review_id, text in texts:
                transaction.put(keys.text(review_id), pack_text(text))

        self._transact(write, write=True)

    def texts(self, version: str, review_ids: Sequence[str]) -> list[str | None]:
        keys = LmdbKeys(version)

        def read(transaction: _Transaction) -> list[str | None]:
            found = ((review_id, transaction.get(keys.text(review_id))) for review_id in review_ids)
            return [None if packed is None else unpack_text(packed, review_id) for review_id, packed in found]

        return self._transact(read)

    def changes(self, version: str, since: Revision | None) -> Changes:
        keys = LmdbKeys(version)
        with self._turn, self._explained():
            now = Revision(self._environment.info()["last_txnid"])
        if since == now:  # no transaction of any process has written since, so this needs none either
            return Changes(revision=now, marks=frozenset())
        return self._transact(lambda transaction: _changes(transaction, keys, since))

    def candidate_sets(self) -> list[str]:
        prefix = LmdbKeys.CANDIDATES
        return self._transact(
            lambda transaction: [key[len(prefix) :].decode() for key, _ in _sizes(transaction, prefix, prefix)]
        )

    def put_candidates(self, name: str, items: Sequence[str]) -> None:
        key, packed = LmdbKeys.candidates(name), pack_candidates(items)
        self._transact(lambda transaction: transaction.put(key, packed), write=True)

    def candidates(self, name: str) -> list[str] | None:
        packed = self._transact(lambda transaction: _copied(transaction.get(LmdbKeys.candidates(name))))
        return None if packed is None else unpack_candidates(packed, name)

    def delete_candidates(self, name: str) -> bool:
        return self._transact(lambda transaction: transaction.delete(LmdbKeys.candidates(name)), write=True)

    def missing(self, version: str, entries: Sequence[ReviewEntry]) -> list[bool]:
        keys = LmdbKeys(version)

        def absent(transaction: _Transaction) -> list[bool]:
            return [any(transaction.get(key) is None for key in _keys_of(keys, entry)) for entry in entries]

        return self._transact(absent)

    def states(self, version: str, review_ids: Sequence[str]) -> list[bytes | None]:
        keys = LmdbKeys(version)
        return self._transact(
            lambda transaction: [_copied(transaction.get(keys.state(review_id))) for review_id in review_ids]
        )

    def user_reviews(self, version: str, users: Sequence[str]) -> list[list[ReviewEntry]]:
        return self.review_lists(version, users=users, items=())[0]

    def item_reviews(self, version: str, items: Sequence[str]) -> list[list[ReviewEntry]]:
        return self.review_lists(version, users=(), items=items)[1]

    def review_lists(
        self, version: str, *, users: Sequence[str], items: Sequence[str]
    ) -> tuple[list[list[ReviewEntry]], list[list[ReviewEntry]]]:
        keys = LmdbKeys(version)
        owners = [*((Side.USER, user) for user in users), *((Side.ITEM, item) for item in items)]

        def read(transaction: _Transaction) -> list[list[ReviewEntry]]:
            return [
                [unpack_line(line, side, entity) for line in _values(transaction, keys.reviews(side, entity))]
                for side, entity in owners
            ]

        lists = [sorted(entries, key=attrgetter("recency"), reverse=True) for entries in self._transact(read)]
        return lists[: len(users)], lists[len(users) :]

    def users(self, version: str) -> list[str]:
        return self._entities(version, Side.USER)

    def items(self, version: str) -> list[str]:
        return self._entities(version, Side.ITEM)

    def state_sizes(self, version: str) -> Iterator[tuple[str, int]]:
        keys = LmdbKeys(version)
        seen: list[tuple[bytes, int]] = []

        def scan_on(transaction: _Transaction) -> list[tuple[bytes, int]]:
            # With a zero byte appended a key becomes the least that sorts after it.
            start = seen[-1][0] + b"\0" if seen else keys.states
            return list(islice(_sizes(transaction, start, keys.states), _KEYS_PER_SCAN))

        # A transaction a page: a long one would keep every page that is replaced meanwhile from being used again.
        while seen := self._transact(scan_on):
            yield from ((keys.review(key), size) for key, size in seen)

    def delete_states(self, version: str, review_ids: Sequence[str]) -> Revision:
        keys = LmdbKeys(version)

        def remove(transaction: _Transaction) -> Revision:
            for review_id in review_ids:
                transaction.delete(keys.state(review_id))
            return _announce(transaction, keys, map(state_mark, review_ids))

        return self._transact(remove, write=True)

    def finish_shard(self, version: str, shard: FinishedShard) -> None:
        keys, packed = LmdbKeys(version), pack_shard(shard)

        def write(transaction: _Transaction) -> None:
            if transaction.get(keys.description) is None:
                raise dropped_meanwhile(version)
            kept = [(key, bytes(value)) for key, value in _items(transaction, keys.shards, keys.shards)]
            for key in (key for key, value in kept if is_damaged(unpack_shard, value)):
                transaction.delete(key)
            transaction.put(keys.shard(packed), packed)

        self._transact(write, write=True)

    def finished_shards(self, version: str) -> list[FinishedShard]:
        keys = LmdbKeys(version)
        packed = self._transact(lambda transaction: [bytes(value) for value in _values(transaction, keys.shards)])
        return sorted(unpack_shard(one, version) for one in packed)

    def list_lengths(self, version: str) -> Iterator[tuple[Side, str, int]]:
        keys = LmdbKeys(version)
        for side in Side:
            start = keys.lists(side)
            while page := self._transact(partial(_lengths, lists=keys.lists(side), start=start)):
                for head, length in page:
                    yield side, LmdbKeys.entity(head), length
                start = _beyond(page[-1][0])

    def claim(self, version: str, review_id: str, claimant: bytes) -> bytes | None:  # noqa: ARG002
        """Nothing to keep: a transaction leaves no half of a write."""
        return None

    def claimant(self, version: str, review_id: str) -> bytes | None:  # noqa: ARG002
        return None

    def unclaim(self, version: str, review_id: str) -> None:
        """Nothing was kept."""

    def hold(self, version: str, holder: str, seconds: float) -> None:
        keys, now = LmdbKeys(version), time.time()

        def write(transaction: _Transaction) -> None:
            kept = [(key, _until(held)) for key, held in _items(transaction, keys.holds, keys.holds)]
            for key in (key for key, until in kept if until <= now):
                transaction.delete(key)  # of a process that was killed
            transaction.put(keys.held(holder), _HELD_UNTIL.pack(now + seconds))

        self._transact(write, write=True)

    def release(self, version: str, holder: str) -> None:
        key = LmdbKeys(version).held(holder)
        self._transact(lambda transaction: transaction.delete(key), write=True)

    def holders(self, version: str) -> list[str]:
        keys, now = LmdbKeys(version), time.time()

        def read(transaction: _Transaction) -> list[str]:
            kept = _items(transaction, keys.holds, keys.holds)
            return [keys.holder(key) for key, held in kept if _until(held) > now]

        return self._transact(read)

    def ping(self) -> None:
        self._transact(lambda transaction: transaction.stat())

    def close(self) -> None:
        with self._turn:
            self._environment.close()

    def _entities(self, version: str, side: Side) -> list[str]:
        lists = LmdbKeys(version).lists(side)
        return sorted(
            self._transact(
                lambda transaction: [LmdbKeys.entity(head) for head in _heads(transaction, lists, LmdbKeys.list_of)]
            )
        )

    def _transact(self, work: Callable[[_Transaction], T], *, write: bool = False) -> T:
        """Run ``work`` in one transaction; again, from its start, whenever the map was full or had grown."""
        with self._turn, self._explained():
            while True:
                try:
                    with self._environment.begin(write=write, buffers=True) as transaction:
                        return work(transaction)
                except lmdb.MapFullError:
                    # Room enough, perhaps, were it not for a reader that was killed since.
                    if not self._environment.reader_check():
                        self._environment.set_mapsize(2 * self._environment.info()["map_size"])
                except lmdb.MapResizedError:
                    self._environment.set_mapsize(0)  # another process has grown it: adopt its size

    def _require_whole(self) -> None:
        """Whoever reads a page that the file lacks is ended by the system, without a word."""
        size = (self._environment.info()["last_pgno"] + 1) * self._environment.stat()["psize"]
        file = self._directory / "data.mdb"
        found = file.stat().st_size
        if found + _LEFT_UNWRITTEN < size:
            self._environment.close()
            raise StoreError(f"{file} is cut short, {found} of {size} bytes: {_RESTORE}")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (lmdb.Error, OSError) as error:
            if _no_room(error, self._directory):
                raise StoreFullError(
                    f"the disk of the state store in {self._directory} is full: make room, drop an old namespace, or "
                    "use a smaller codec"
                ) from error
            remedy = _remedy(error)
            raise StoreError(f"the state store in {self._directory} cannot be used: {error}{remedy}") from error


def _require_own(directory: Path) -> None:
    """Raise ``StoreError`` for a directory in which other things lie, and no store."""
    if (directory / "data.mdb").exists():
        return
    foreign = sorted({path.name for path in directory.iterdir()} - {"lock.mdb", "lost+found"})
    if foreign:
        raise StoreError(
            f"{directory} holds {foreign[0]} and no state store: give a new directory, or one that "
            "`ubert precompute` wrote"
        )


def _no_room(error: Exception, directory: Path) -> bool:
    """The write that fills a disk is cut short, which LMDB takes for a broken disk; those after it find no room."""
    cut_short = isinstance(error, lmdb.Error) and getattr(error, "code", None) == errno.EIO
    return isinstance(error, lmdb.DiskError) or (cut_short and shutil.disk_usage(directory).free < _ROOM_TO_WRITE)


def _remedy(error: Exception) -> str:
    if isinstance(error, _DAMAGED):
        return f": {_RESTORE}"
    if getattr(error, "code", None) in (errno.EACCES, errno.EROFS):
        return ": let this user write there, as whoever reads has to, too"
    return ""


def _keys_of(keys: LmdbKeys, entry: ReviewEntry) -> list[bytes]:
    return [*(keys.line(side, entry) for side in Side), keys.state(entry.review_id)]


def _put_lines(transaction: _Transaction, keys: LmdbKeys, entries: Sequence[ReviewEntry]) -> Revision:
    for entry in entries:
        for side in Side:
            transaction.put(keys.line(side, entry), pack_line(entry, side))
    return _announce(transaction, keys, marks_of(entries))


def _announce(transaction: _Transaction, keys: LmdbKeys, marks: Iterable[bytes]) -> Revision:
    number = transaction.id()
    if transaction.get(keys.first_change) is None:
        transaction.put(keys.first_change, (number - 1).to_bytes(8, "big"))
    transaction.put(keys.change(number), pack_marks(marks))
    cursor = transaction.cursor()
    found = cursor.set_range(keys.change(1))
    while found and bytes(cursor.key()) < keys.change(max(1, number - REMEMBERED_CHANGES)):
        found = cursor.delete()
    return Revision(number)


def _changes(transaction: _Transaction, keys: LmdbKeys, since: Revision | None) -> Changes:
    now = Revision(transaction.id())
    first = transaction.get(keys.first_change)
    if (
        first is None
        or since is None
        or since.major < max(int.from_bytes(first, "big"), now.major - REMEMBERED_CHANGES)
    ):
        return Changes(revision=now, marks=None)
    marks: set[bytes] = set()
    cursor = transaction.cursor()
    found = cursor.set_range(keys.change(since.major + 1))
    while found and bytes(cursor.key()).startswith(keys.changes):
        marks |= unpack_marks(cursor.value())
        found = cursor.next()
    return Changes(revision=now, marks=frozenset(marks))


def _lengths(transaction: _Transaction, *, lists: bytes, start: bytes) -> list[tuple[bytes, int]]:
    """The first lists from ``start`` on, each by the prefix of its lines, with how many lines it has."""
    lines = groupby(_sizes(transaction, start, lists), lambda line: LmdbKeys.list_of(line[0]))
    return [(head, sum(1 for _ in same)) for head, same in islice(lines, _LISTS_PER_PAGE)]


def _copied(value: memoryview | None) -> bytes | None:
    """LMDB's own bytes are gone when the transaction ends."""
    return None if value is None else bytes(value)


def _values(transaction: _Transaction, prefix: bytes) -> Iterator[memoryview]:
    cursor = transaction.cursor()
    found = cursor.set_range(prefix)
    while found and bytes(cursor.key()).startswith(prefix):
        yield cursor.value()
        found = cursor.next()


def _sizes(transaction: _Transaction, start: bytes, prefix: bytes) -> Iterator[tuple[bytes, int]]:
    """Keys under ``prefix`` from ``start`` on, each with the size of its value."""
    return ((key, len(value)) for key, value in _items(transaction, start, prefix))


def _items(transaction: _Transaction, start: bytes, prefix: bytes) -> Iterator[tuple[bytes, memoryview]]:
    cursor = transaction.cursor()
    found = cursor.set_range(start)
    while found and (key := bytes(cursor.key())).startswith(prefix):
        yield key, cursor.value()
        found = cursor.next()


def _heads(transaction: _Transaction, prefix: bytes, head_of: Callable[[bytes], bytes]) -> Iterator[bytes]:
    """Each distinct head of the keys under ``prefix``, in order; one seek a head, whatever lies below it."""
    cursor = transaction.cursor()
    found = cursor.set_range(prefix)
    while found and (key := bytes(cursor.key())).startswith(prefix):
        head = head_of(key)
        yield head
        found = cursor.set_range(_beyond(head))


def _until(held: memoryview) -> float:
    (until,) = _HELD_UNTIL.unpack(held)
    return float(until)


def _beyond(head: bytes) -> bytes:
    """Sorts after every key that begins with ``head``."""
    return head.ljust(_LONGEST_KEY, b"\xff")
