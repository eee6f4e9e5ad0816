"""States in a local LMDB directory: for one machine, without a server.

Several processes may read while one writes. A transaction is atomic, and on disk when it returns.
"""

import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from operator import attrgetter
from pathlib import Path

from ubert_model.review import ReviewEntry, Side
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
from ubert_model.states.keys import LmdbKeys
from ubert_model.states.lmdb_directory import LmdbDirectory, Transaction
from ubert_model.states.lmdb_scans import (
    after_prefix,
    copied,
    delete_range,
    distinct_prefixes,
    items_from,
    lengths_from,
    sizes_from,
    values_under,
)
from ubert_model.states.records import (
    check_same_namespace,
    check_state_size,
    dropped_meanwhile,
    is_damaged,
    is_same_pair,
    name_taken,
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
from ubert_model.states.store import FinishedShard, Namespace

_KEYS_PER_DROP = 10_000
_KEYS_PER_SCAN = 10_000
_HELD_UNTIL = struct.Struct("<d")
"""When a lease on a namespace ends, in unix seconds: its holder and whoever drops it share this machine's clock."""


class LmdbStore:
    """A ``MaintenanceStore`` in ``directory``, which is created if it does not exist.

    ``initial_map_bytes`` is address space, not disk: the map doubles whenever it is full. Thread-safe, one
    transaction at a time. A process may open a directory only once, and must not use it across a fork.

    Raises ``StoreError`` if the directory cannot be used.
    """

    def __init__(self, directory: Path, *, initial_map_bytes: int = 1 << 30) -> None:
        self._directory = LmdbDirectory(directory, initial_map_bytes=initial_map_bytes)

    @property
    def local(self) -> bool:
        return True

    def open_namespace(self, namespace: Namespace) -> None:
        key, packed = LmdbKeys(namespace.version).description, pack_namespace(namespace)

        def declare(transaction: Transaction) -> None:
            stored = copied(transaction.get(key))
            if stored is None or is_damaged(unpack_namespace, stored):
                transaction.put(key, packed)
            else:
                check_same_namespace(namespace, stored)

        self._directory.transact(declare, write=True)

    def namespaces(self) -> list[Namespace]:
        def read(transaction: Transaction) -> list[Namespace]:
            prefixes = distinct_prefixes(transaction, b"", lambda key: key[: LmdbKeys.VERSION_BYTES])
            versions = [prefix.hex() for prefix in prefixes if prefix != LmdbKeys.CANDIDATES]
            descriptions = [copied(transaction.get(LmdbKeys(version).description)) for version in versions]
            found = zip(descriptions, versions, strict=True)
            return [unpack_namespace(packed, version) for packed, version in found if packed is not None]

        return self._directory.transact(read)

    def drop_namespace(self, version: str) -> int:
        keys = LmdbKeys(version)
        page = partial(delete_range, start=keys.namespace, end=after_prefix(keys.namespace), limit=_KEYS_PER_DROP)
        removed = 0
        while dropped := self._directory.transact(page, write=True):
            removed += sum(key.startswith(keys.states) for key in dropped)
        return removed

    def put(
        self, version: str, reviews: Sequence[tuple[ReviewEntry, bytes]], texts: Sequence[tuple[str, str]] = ()
    ) -> Revision:
        keys = LmdbKeys(version)
        return self._directory.transact(lambda transaction: _put(transaction, keys, reviews, texts), write=True)

    def put_new(
        self, version: str, entry: ReviewEntry, state: bytes, texts: Sequence[tuple[str, str]] = ()
    ) -> Revision:
        keys = LmdbKeys(version)

        def write(transaction: Transaction) -> Revision:
            if transaction.get(keys.state(entry.review_id)) is not None and not _is_listed(transaction, keys, entry):
                raise name_taken(entry.review_id)
            return _put(transaction, keys, [(entry, state)], texts)

        return self._directory.transact(write, write=True)

    def put_lines(self, version: str, entries: Sequence[ReviewEntry]) -> Revision:
        keys = LmdbKeys(version)
        return self._directory.transact(lambda transaction: _put_lines(transaction, keys, entries), write=True)

    def lines(self, version: str, side: Side, entity: str) -> dict[bytes, bytes]:
        prefix = LmdbKeys(version).reviews(side, entity)
        return self._directory.transact(
            lambda transaction: {
                key.removeprefix(prefix): bytes(line) for key, line in items_from(transaction, prefix, prefix)
            }
        )

    def remove_lines(self, version: str, side: Side, entity: str, names: Sequence[bytes]) -> Revision:
        keys = LmdbKeys(version)
        prefix = keys.reviews(side, entity)

        def remove(transaction: Transaction) -> Revision:
            for name in names:
                transaction.delete(prefix + name)
            return _announce(transaction, keys, [entity_mark(side, entity)])

        return self._directory.transact(remove, write=True)

    def delete(self, version: str, entries: Sequence[ReviewEntry]) -> Revision:
        keys = LmdbKeys(version)

        def remove(transaction: Transaction) -> Revision:
            for entry in entries:
                for key in (*_keys_of(keys, entry), keys.text(entry.review_id)):
                    transaction.delete(key)
            return _announce(transaction, keys, marks_of(entries))

        return self._directory.transact(remove, write=True)

    def announce(self, version: str, marks: Iterable[bytes]) -> Revision:
        keys = LmdbKeys(version)
        return self._directory.transact(lambda transaction: _announce(transaction, keys, marks), write=True)

    def put_texts(self, version: str, texts: Sequence[tuple[str, str]]) -> None:
        keys = LmdbKeys(version)

        def write(transaction: Transaction) -> None:
            for review_id, text in texts:
                transaction.put(keys.text(review_id), pack_text(text))

        self._directory.transact(write, write=True)

    def delete_texts(self, version: str, review_ids: Sequence[str]) -> None:
        keys = LmdbKeys(version)

        def remove(transaction: Transaction) -> None:
            for review_id in review_ids:
                transaction.delete(keys.text(review_id))

        self._directory.transact(remove, write=True)

    def texts(self, version: str, review_ids: Sequence[str]) -> list[str | None]:
        keys = LmdbKeys(version)

        def read(transaction: Transaction) -> list[str | None]:
            found = ((review_id, transaction.get(keys.text(review_id))) for review_id in review_ids)
            return [None if packed is None else unpack_text(packed, review_id) for review_id, packed in found]

        return self._directory.transact(read)

    def changes(self, version: str, since: Revision | None) -> Changes:
        keys = LmdbKeys(version)
        now = Revision(self._directory.last_transaction())
        if since == now:  # nothing was written since, by any process: no transaction needed
            return Changes(revision=now, marks=frozenset())
        return self._directory.transact(lambda transaction: _changes(transaction, keys, since))

    def candidate_sets(self) -> list[str]:
        prefix = LmdbKeys.CANDIDATES
        return self._directory.transact(
            lambda transaction: [key[len(prefix) :].decode() for key, _ in sizes_from(transaction, prefix, prefix)]
        )

    def put_candidates(self, name: str, items: Sequence[str]) -> None:
        key, packed = LmdbKeys.candidates(name), pack_candidates(items)
        self._directory.transact(lambda transaction: transaction.put(key, packed), write=True)

    def candidates(self, name: str) -> list[str] | None:
        packed = self._directory.transact(lambda transaction: copied(transaction.get(LmdbKeys.candidates(name))))
        return None if packed is None else unpack_candidates(packed, name)

    def delete_candidates(self, name: str) -> bool:
        return self._directory.transact(lambda transaction: transaction.delete(LmdbKeys.candidates(name)), write=True)

    def missing(self, version: str, entries: Sequence[ReviewEntry]) -> list[bool]:
        keys = LmdbKeys(version)

        def absent(transaction: Transaction) -> list[bool]:
            return [any(transaction.get(key) is None for key in _keys_of(keys, entry)) for entry in entries]

        return self._directory.transact(absent)

    def states(self, version: str, review_ids: Sequence[str]) -> list[bytes | None]:
        keys = LmdbKeys(version)
        return self._directory.transact(
            lambda transaction: [copied(transaction.get(keys.state(review_id))) for review_id in review_ids]
        )

    def review_lists(
        self, version: str, *, users: Sequence[str] = (), items: Sequence[str] = ()
    ) -> tuple[list[list[ReviewEntry]], list[list[ReviewEntry]]]:
        keys = LmdbKeys(version)
        owners = [*((Side.USER, user) for user in users), *((Side.ITEM, item) for item in items)]

        def read(transaction: Transaction) -> list[list[bytes]]:
            return [[bytes(line) for line in values_under(transaction, keys.reviews(*owner))] for owner in owners]

        # Unpacked after the transaction, since no other can begin before its end: long lists take seconds. And into a
        # list, because ``sorted`` of an iterator keeps room for more.
        lists = [
            sorted([unpack_line(line, *owner) for line in lines], key=attrgetter("recency"), reverse=True)
            for owner, lines in zip(owners, self._directory.transact(read), strict=True)
        ]
        return lists[: len(users)], lists[len(users) :]

    def entities(self, version: str, side: Side) -> list[str]:
        lists = LmdbKeys(version).lists(side)
        prefixes = self._directory.transact(
            lambda transaction: list(distinct_prefixes(transaction, lists, LmdbKeys.list_of))
        )
        return sorted(map(LmdbKeys.entity, prefixes))

    def state_sizes(self, version: str) -> Iterator[tuple[str, int]]:
        keys = LmdbKeys(version)
        seen: list[tuple[bytes, int]] = []

        def scan_on(transaction: Transaction) -> list[tuple[bytes, int]]:
            # The least key that sorts after another is that key with a zero byte appended.
            start = seen[-1][0] + b"\0" if seen else keys.states
            return list(islice(sizes_from(transaction, start, keys.states), _KEYS_PER_SCAN))

        # One transaction a page of keys: a long one would pin every disk page that is replaced meanwhile.
        while seen := self._directory.transact(scan_on):
            yield from ((keys.review(key), size) for key, size in seen)

    def delete_states(self, version: str, review_ids: Sequence[str]) -> Revision:
        keys = LmdbKeys(version)

        def remove(transaction: Transaction) -> Revision:
            for review_id in review_ids:
                transaction.delete(keys.state(review_id))
            return _announce(transaction, keys, map(state_mark, review_ids))

        return self._directory.transact(remove, write=True)

    def finish_shard(self, version: str, shard: FinishedShard) -> None:
        keys, packed = LmdbKeys(version), pack_shard(shard)

        def write(transaction: Transaction) -> None:
            if transaction.get(keys.description) is None:
                raise dropped_meanwhile(version)
            kept = items_from(transaction, keys.shards, keys.shards)
            for key in [key for key, value in kept if is_damaged(unpack_shard, bytes(value))]:
                transaction.delete(key)
            transaction.put(keys.shard(packed), packed)

        self._directory.transact(write, write=True)

    def finished_shards(self, version: str) -> list[FinishedShard]:
        keys = LmdbKeys(version)
        packed = self._directory.transact(
            lambda transaction: [bytes(value) for value in values_under(transaction, keys.shards)]
        )
        return sorted(unpack_shard(shard, version) for shard in packed)

    def list_lengths(self, version: str) -> Iterator[tuple[Side, str, int]]:
        keys = LmdbKeys(version)
        for side in Side:
            start = keys.lists(side)
            while page := self._directory.transact(partial(lengths_from, lists=keys.lists(side), start=start)):
                for prefix, length in page:
                    yield side, LmdbKeys.entity(prefix), length
                start = after_prefix(page[-1][0])

    def hold(self, version: str, holder: str, seconds: float) -> None:
        keys, now = LmdbKeys(version), time.time()

        def write(transaction: Transaction) -> None:
            kept = items_from(transaction, keys.holds, keys.holds)
            for key in [key for key, held in kept if _until(held) <= now]:
                transaction.delete(key)  # the holder was killed
            transaction.put(keys.held(holder), _HELD_UNTIL.pack(now + seconds))

        self._directory.transact(write, write=True)

    def release(self, version: str, holder: str) -> None:
        key = LmdbKeys(version).held(holder)
        self._directory.transact(lambda transaction: transaction.delete(key), write=True)

    def holders(self, version: str) -> list[str]:
        keys, now = LmdbKeys(version), time.time()

        def read(transaction: Transaction) -> list[str]:
            kept = items_from(transaction, keys.holds, keys.holds)
            return [keys.holder(key) for key, held in kept if _until(held) > now]

        return self._directory.transact(read)

    def ping(self) -> None:
        self._directory.transact(lambda transaction: transaction.stat())

    def close(self) -> None:
        self._directory.close()


def _keys_of(keys: LmdbKeys, entry: ReviewEntry) -> list[bytes]:
    return [*(keys.line(side, entry) for side in Side), keys.state(entry.review_id)]


def _is_listed(transaction: Transaction, keys: LmdbKeys, entry: ReviewEntry) -> bool:
    return any(is_same_pair(transaction.get(keys.line(side, entry)), side, entry) for side in Side)


def _put(
    transaction: Transaction,
    keys: LmdbKeys,
    reviews: Sequence[tuple[ReviewEntry, bytes]],
    texts: Sequence[tuple[str, str]],
) -> Revision:
    for entry, state in reviews:
        check_state_size(entry.review_id, state)
        transaction.put(keys.state(entry.review_id), state)
        transaction.delete(keys.text(entry.review_id))
    for review_id, text in texts:
        transaction.put(keys.text(review_id), pack_text(text))
    return _put_lines(transaction, keys, [entry for entry, _ in reviews])


def _put_lines(transaction: Transaction, keys: LmdbKeys, entries: Sequence[ReviewEntry]) -> Revision:
    for entry in entries:
        for side in Side:
            transaction.put(keys.line(side, entry), pack_line(entry, side))
    return _announce(transaction, keys, marks_of(entries))


def _announce(transaction: Transaction, keys: LmdbKeys, marks: Iterable[bytes]) -> Revision:
    number = transaction.id()
    if transaction.get(keys.feed_start) is None:
        transaction.put(keys.feed_start, (number - 1).to_bytes(8, "big"))
    transaction.put(keys.change(number), pack_marks(marks))
    delete_range(transaction, keys.change(1), keys.change(max(1, number - REMEMBERED_CHANGES)))
    return Revision(number)


def _changes(transaction: Transaction, keys: LmdbKeys, since: Revision | None) -> Changes:
    now = Revision(transaction.id())
    start = transaction.get(keys.feed_start)
    oldest = max(int.from_bytes(start or b"", "big"), now.major - REMEMBERED_CHANGES)
    if start is None or since is None or since.major < oldest:
        return Changes(revision=now, marks=None)
    announced = items_from(transaction, keys.change(since.major + 1), keys.changes)
    return Changes(revision=now, marks=frozenset().union(*(unpack_marks(marks) for _, marks in announced)))


def _until(held: memoryview) -> float:
    (until,) = _HELD_UNTIL.unpack(held)
    return float(until)
