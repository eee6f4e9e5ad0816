"""States in Redis: one server, a primary that sentinels watch, or a cluster.

A string for each review (and one for its text, if that is stored), a hash for each review list, a stream of changes for
each namespace, and one hash of namespaces.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from operator import attrgetter

from ubert_model.errors import StoreError, StoreFullError, StoreUnavailableError
from ubert_model.identifiers import identifier_bytes
from ubert_model.review import ReviewEntry, Side
from ubert_model.running.batches import batches
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
from ubert_model.states.keys import RedisKeys
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
from ubert_model.states.redis_address import RedisAddress
from ubert_model.states.redis_claims import RedisClaims
from ubert_model.states.redis_errors import Command
from ubert_model.states.redis_pipelines import RedisPipelines
from ubert_model.states.store import FinishedShard, Namespace

_STATES_PER_COMMAND = 500
# Bounds, because a server keeps the replies of a pipeline in its memory until they are read.
_STATE_COMMANDS_PER_PIPELINE = 10
_KEYS_PER_PAGE = 1_000
_CHANGES_PER_READ = 1_000

_MARKS = b"marks"


class RedisStore:
    """A ``MaintenanceStore`` in Redis. Thread-safe; connects on first use.

    ``url``: ``redis://``, ``rediss://`` or ``unix://``; ``redis+cluster://`` with some of the nodes, separated by
    commas; ``redis+sentinel://`` with the sentinels, and their name for the primary in the path (``/name/database``).
    With TLS the last two are ``rediss+…``. The query holds options of the client library, and two of this store:

    - ``wait_replicas``: a write returns once so many replicas of its primary have it, so that it survives the primary;
      else it raises ``UnconfirmedWriteError``. 0: it returns once the primary has it.
    - ``patience``: for how many seconds a call is retried while the servers are unavailable, as in a failover.

    ``timeout_s`` bounds each wait for a server, ``retries`` the attempts after a broken connection.

    Raises ``ConfigError`` for a malformed URL. No message ever holds the URL's password.
    """

    def __init__(self, url: str, *, timeout_s: float = 2.0, retries: int = 2) -> None:
        self._redis = RedisPipelines(RedisAddress.parse(url), timeout_s=timeout_s, retries=retries)
        self._claims = RedisClaims(self._redis)

    @property
    def local(self) -> bool:
        return False

    def open_namespace(self, namespace: Namespace) -> None:
        RedisKeys(namespace.version)
        field, packed = namespace.version.encode(), pack_namespace(namespace)
        (stored,) = self._redis.read([("HGET", RedisKeys.NAMESPACES, field)])
        if stored is None:  # a full server refuses even a write that would change nothing
            _, stored = self._redis.write(
                [("HSETNX", RedisKeys.NAMESPACES, field, packed), ("HGET", RedisKeys.NAMESPACES, field)]
            )
        if stored is not None and is_damaged(unpack_namespace, stored):
            self._redis.write([("HSET", RedisKeys.NAMESPACES, field, packed)])
        else:
            check_same_namespace(namespace, stored)

    def namespaces(self) -> list[Namespace]:
        (found,) = self._redis.read([("HGETALL", RedisKeys.NAMESPACES)])
        described = [unpack_namespace(packed, version.decode()) for version, packed in found.items()]
        return sorted(described, key=attrgetter("version"))

    def drop_namespace(self, version: str) -> int:
        keys = RedisKeys(version)
        unlink_shards, unlink_feed = ("UNLINK", keys.shards), ("UNLINK", keys.changes)
        self._redis.write([unlink_shards])
        self._redis.write(("UNLINK", key) for key in self._redis.scan(keys.texts_pattern()))
        for side in Side:
            self._redis.write(("UNLINK", key) for key in self._redis.scan(keys.reviews_pattern(side)))
        removed: int = sum(self._redis.write(("UNLINK", key) for key in self._redis.scan(keys.states_pattern())))
        # The loss of the feed tells its followers to discard whatever they keep.
        self._redis.write([unlink_feed])
        # The description goes after what it describes, so that a drop that is cut short still lists the namespace.
        self._redis.write([("HDEL", RedisKeys.NAMESPACES, version.encode())])
        # Again, because a shard may have been finished meanwhile, or a follower have started a new feed.
        self._redis.write([unlink_shards, unlink_feed])
        return removed

    def put(
        self, version: str, reviews: Sequence[tuple[ReviewEntry, bytes]], texts: Sequence[tuple[str, str]] = ()
    ) -> Revision:
        keys = RedisKeys(version)
        for entry, state in reviews:
            check_state_size(entry.review_id, state)
        entries = [entry for entry, _ in reviews]
        lines = _lines(keys, entries)
        states = [("SET", keys.state(entry.review_id), state) for entry, state in reviews]
        given = {review_id for review_id, _ in texts}
        outdated = [("UNLINK", keys.text(entry.review_id)) for entry in entries if entry.review_id not in given]
        # Texts first: a writer that is killed after them finds the review still missing, and resumes.
        self.put_texts(version, texts)
        self._redis.write(chain(outdated, states))
        self._redis.write(lines)
        return self._announce(keys, marks_of(entries))

    def put_new(
        self, version: str, entry: ReviewEntry, state: bytes, texts: Sequence[tuple[str, str]] = ()
    ) -> Revision:
        keys = RedisKeys(version)
        self._claims.claim_new(keys, entry)
        revision = self.put(version, [(entry, state)], texts)
        self._claims.end(keys, [entry])
        return revision

    def put_lines(self, version: str, entries: Sequence[ReviewEntry]) -> Revision:
        keys = RedisKeys(version)
        self._redis.write(_lines(keys, entries))
        return self._announce(keys, marks_of(entries))

    def lines(self, version: str, side: Side, entity: str) -> dict[bytes, bytes]:
        (found,) = self._redis.read([("HGETALL", RedisKeys(version).reviews(side, entity))])
        return dict(found)

    def remove_lines(self, version: str, side: Side, entity: str, names: Sequence[bytes]) -> Revision:
        keys = RedisKeys(version)
        self._redis.write(("HDEL", keys.reviews(side, entity), name) for name in names)
        return self._announce(keys, [entity_mark(side, entity)])

    def delete(self, version: str, entries: Sequence[ReviewEntry]) -> Revision:
        keys = RedisKeys(version)
        with suppress(StoreFullError):  # a server out of memory still deletes, to make room
            self._claims.claim(keys, entries)
        self._redis.write(
            ("HDEL", keys.reviews(side, side.entity(entry)), identifier_bytes(entry.review_id))
            for entry in entries
            for side in Side
        )
        self._redis.write(
            ("UNLINK", key) for entry in entries for key in (keys.text(entry.review_id), keys.state(entry.review_id))
        )
        self._claims.end(keys, entries)
        return self._announce(keys, marks_of(entries))

    def announce(self, version: str, marks: Iterable[bytes]) -> Revision:
        return self._announce(RedisKeys(version), marks)

    def put_texts(self, version: str, texts: Sequence[tuple[str, str]]) -> None:
        keys = RedisKeys(version)
        self._redis.write(("SET", keys.text(review_id), pack_text(text)) for review_id, text in texts)

    def delete_texts(self, version: str, review_ids: Sequence[str]) -> None:
        keys = RedisKeys(version)
        self._redis.write(("UNLINK", keys.text(review_id)) for review_id in review_ids)

    def texts(self, version: str, review_ids: Sequence[str]) -> list[str | None]:
        keys = RedisKeys(version)
        found = self._redis.read(("GET", keys.text(review_id)) for review_id in review_ids)
        return [
            None if packed is None else unpack_text(packed, review_id)
            for review_id, packed in zip(review_ids, found, strict=True)
        ]

    def changes(self, version: str, since: Revision | None) -> Changes:
        key = RedisKeys(version).changes
        if since is None:
            return self._anything_changed(version)
        marks: set[bytes] = set()
        revision, more = since, True
        while more:
            # From ``revision`` itself on: if its own entry is gone, later ones may be gone, too.
            (entries,) = self._redis.read([("XRANGE", key, str(revision), "+", "COUNT", str(_CHANGES_PER_READ))])
            if not entries or _revision(entries[0][0]) != revision:
                return self._anything_changed(version)
            for _, fields in entries[1:]:
                marks |= unpack_marks(fields[_MARKS])
            revision, more = _revision(entries[-1][0]), len(entries) == _CHANGES_PER_READ
        return Changes(revision=revision, marks=frozenset(marks), history=self._redis.history(key))

    def candidate_sets(self) -> list[str]:
        (names,) = self._redis.read([("HKEYS", RedisKeys.CANDIDATES)])
        return sorted(name.decode() for name in names)

    def put_candidates(self, name: str, items: Sequence[str]) -> None:
        self._redis.write([("HSET", RedisKeys.CANDIDATES, identifier_bytes(name), pack_candidates(items))])

    def candidates(self, name: str) -> list[str] | None:
        (packed,) = self._redis.read([("HGET", RedisKeys.CANDIDATES, identifier_bytes(name))])
        return None if packed is None else unpack_candidates(packed, name)

    def delete_candidates(self, name: str) -> bool:
        (removed,) = self._redis.write([("HDEL", RedisKeys.CANDIDATES, identifier_bytes(name))])
        return bool(removed)

    def missing(self, version: str, entries: Sequence[ReviewEntry]) -> list[bool]:
        keys = RedisKeys(version)
        commands: list[Command] = []
        for entry in entries:
            commands.append(("EXISTS", keys.state(entry.review_id)))
            commands += [
                ("HEXISTS", keys.reviews(side, side.entity(entry)), identifier_bytes(entry.review_id)) for side in Side
            ]
        found = self._redis.read(commands)
        return [not all(found[first : first + 3]) for first in range(0, len(found), 3)]

    def states(self, version: str, review_ids: Sequence[str]) -> list[bytes | None]:
        keys = RedisKeys(version)
        state_keys = [keys.state(review_id) for review_id in review_ids]
        if self._redis.is_cluster:
            return self._redis.read(("GET", key) for key in state_keys)
        # MGET takes half the time of a GET for each key.
        commands: list[Command] = [("MGET", *batch) for batch in batches(state_keys, _STATES_PER_COMMAND)]
        pipelines = batches(commands, _STATE_COMMANDS_PER_PIPELINE)
        return [state for pipeline in pipelines for states in self._redis.read(pipeline) for state in states]

    def review_lists(
        self, version: str, *, users: Sequence[str] = (), items: Sequence[str] = ()
    ) -> tuple[list[list[ReviewEntry]], list[list[ReviewEntry]]]:
        keys = RedisKeys(version)
        owners = [*((Side.USER, user) for user in users), *((Side.ITEM, item) for item in items)]
        hashes = self._redis.read(("HVALS", keys.reviews(side, entity)) for side, entity in owners)
        lists = [
            sorted((unpack_line(line, side, entity) for line in lines), key=attrgetter("recency"), reverse=True)
            for (side, entity), lines in zip(owners, hashes, strict=True)
        ]
        return lists[: len(users)], lists[len(users) :]

    def entities(self, version: str, side: Side) -> list[str]:
        keys = RedisKeys(version)
        # A scan may name a key twice while the server rehashes.
        return sorted({keys.name(key) for key in self._redis.scan(keys.reviews_pattern(side))})

    def state_sizes(self, version: str) -> Iterator[tuple[str, int]]:
        keys = self._redis.scan(RedisKeys(version).states_pattern())
        while found := list(islice(keys, _KEYS_PER_PAGE)):
            sizes = self._redis.read(("STRLEN", key) for key in found)
            # A size of 0 means that the key was deleted after the scan saw it: no state is empty.
            yield from ((RedisKeys.name(key), size) for key, size in zip(found, sizes, strict=True) if size)

    def delete_states(self, version: str, review_ids: Sequence[str]) -> Revision:
        keys = RedisKeys(version)
        self._redis.write(("UNLINK", keys.state(review_id)) for review_id in review_ids)
        return self._announce(keys, map(state_mark, review_ids))

    def finish_shard(self, version: str, shard: FinishedShard) -> None:
        shards, packed = RedisKeys(version).shards, pack_shard(shard)
        (kept,) = self._redis.read([("SMEMBERS", shards)])
        damaged = [("SREM", shards, record) for record in kept if is_damaged(unpack_shard, record)]
        self._redis.write([("SADD", shards, packed), *damaged])
        # Checked afterwards, because a drop removes shards once more after the description.
        (declared,) = self._redis.read([("HEXISTS", RedisKeys.NAMESPACES, version.encode())])
        if not declared:
            self._redis.write([("SREM", shards, packed)])
            raise dropped_meanwhile(version)

    def finished_shards(self, version: str) -> list[FinishedShard]:
        (packed,) = self._redis.read([("SMEMBERS", RedisKeys(version).shards)])
        return sorted(unpack_shard(shard, version) for shard in packed)

    def list_lengths(self, version: str) -> Iterator[tuple[Side, str, int]]:
        keys = RedisKeys(version)
        for side in Side:
            found = self._redis.scan(keys.reviews_pattern(side))
            while page := list(islice(found, _KEYS_PER_PAGE)):
                lengths = self._redis.read(("HLEN", key) for key in page)
                for key, length in zip(page, lengths, strict=True):
                    yield side, keys.name(key), length

    def hold(self, version: str, holder: str, seconds: float) -> None:
        key, milliseconds = RedisKeys(version).held(holder), str(round(1000 * seconds))
        # A server out of memory refuses a SET but not a PEXPIRE; it is then that operators look for namespaces to drop.
        (renewed,) = self._redis.write([("PEXPIRE", key, milliseconds)])
        if not renewed:
            self._redis.write([("SET", key, b"", "PX", milliseconds)])

    def release(self, version: str, holder: str) -> None:
        self._redis.write([("UNLINK", RedisKeys(version).held(holder))])

    def holders(self, version: str) -> list[str]:
        keys = RedisKeys(version)
        return sorted({keys.name(key) for key in self._redis.scan(keys.held_pattern())})

    def ping(self) -> None:
        self._redis.ping()

    def close(self) -> None:
        self._redis.close()

    def _announce(self, keys: RedisKeys, marks: Iterable[bytes]) -> Revision:
        """Announce a write, in a round trip after it: in the same pipeline, a cluster might announce it too early."""
        try:
            (identifier,) = self._redis.write([_entry(keys.changes, pack_marks(marks))])
        except StoreFullError:
            # A server out of memory still deletes, and without the feed its followers assume that anything has changed.
            newest, _ = self._redis.write([_newest(keys.changes), ("UNLINK", keys.changes)])
            last = _revision(newest[0][0]) if newest else Revision(0)
            return Revision(last.major, last.minor + 1)
        return _revision(identifier)

    def _anything_changed(self, version: str) -> Changes:
        end = self._end_of_feed(version)
        # Ask for the history last: a command with the feed's key has told the library which server holds the feed now.
        return Changes(revision=end, marks=None, history=self._redis.history(RedisKeys(version).changes))

    def _end_of_feed(self, version: str) -> Revision | None:
        """The feed's last position, after starting a feed if there is none; None if that is not possible."""
        key = RedisKeys(version).changes
        newest, declared = self._redis.read([_newest(key), ("HEXISTS", RedisKeys.NAMESPACES, version.encode())])
        if newest:
            return _revision(newest[0][0])
        if not declared:
            return None
        try:
            (identifier,) = self._redis.write([_entry(key, b"")])
        except StoreUnavailableError:
            raise
        except StoreError:  # out of memory, or no permission to write
            return None
        return _revision(identifier)


def _lines(keys: RedisKeys, entries: Sequence[ReviewEntry]) -> list[Command]:
    return [
        ("HSET", keys.reviews(side, side.entity(entry)), identifier_bytes(entry.review_id), pack_line(entry, side))
        for entry in entries
        for side in Side
    ]


def _entry(feed: bytes, announcement: bytes) -> Command:
    return ("XADD", feed, "MAXLEN", "~", str(REMEMBERED_CHANGES), "*", _MARKS, announcement)


def _newest(feed: bytes) -> Command:
    return ("XREVRANGE", feed, "+", "-", "COUNT", "1")


def _revision(identifier: bytes) -> Revision:
    return Revision.parse(identifier.decode())
