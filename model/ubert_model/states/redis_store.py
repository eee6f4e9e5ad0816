"""States in Redis, one server or a cluster.

One string a review (and one for its text, where that is kept), one hash a review list, one stream of changes, one
hash of namespaces. Commands travel in pipelines without transactions; towards a cluster, which may hold the keys
anywhere, each names one key.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from operator import attrgetter
from typing import Any
from urllib.parse import urlsplit

from redis import BlockingConnectionPool, Redis, RedisCluster
from redis import exceptions as refusals
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from ubert_model.errors import ConfigError, StoreError, StoreUnavailableError
from ubert_model.states.changes import (
    REMEMBERED_CHANGES,
    Changes,
    Revision,
    marks_of,
    pack_marks,
    state_mark,
    unpack_marks,
)
from ubert_model.states.keys import RedisKeys, Side, identifier_bytes
from ubert_model.states.records import (
    check_same_namespace,
    check_state_size,
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

_Command = tuple[str | bytes, ...]

_COMMANDS_PER_PIPELINE = 10_000
_BYTES_PER_PIPELINE = 64 * 1024 * 1024
# A server holds the replies of a pipeline in its own memory until they are read.
_STATES_PER_COMMAND = 500
_KEYS_PER_SCAN = 1_000
_CHANGES_AT_ONCE = 1_000
_MARKS = b"marks"
_CLUSTER = "+cluster"
_CREDENTIALS = (refusals.AuthenticationError, refusals.AuthorizationError, refusals.NoPermissionError)
_UNREACHABLE = (
    refusals.ConnectionError,
    refusals.TimeoutError,
    refusals.ClusterDownError,
    refusals.TryAgainError,
    refusals.RedisClusterException,
    OSError,
)


class RedisStore:
    """A ``StateStore`` in Redis. Thread-safe; connects on first use (a cluster: at once, to learn its nodes).

    ``url``: ``redis://``, ``rediss://``, ``unix://``, ``redis+cluster://`` or ``rediss+cluster://``, with the
    client's options as its query. ``timeout_s`` bounds each wait for the server, ``retries`` the attempts after a
    broken connection; a timeout is not retried, since a server that is slow is not helped by asking again.

    Raises ``ConfigError`` for a malformed URL. No message ever holds the URL's password.
    """

    def __init__(self, url: str, *, timeout_s: float = 2.0, retries: int = 2, max_connections: int = 64) -> None:
        self._place = _place(url)
        self._is_cluster = url.partition("://")[0].endswith(_CLUSTER)
        retry = Retry(ExponentialBackoff(cap=0.5, base=0.05), retries, supported_errors=(refusals.ConnectionError,))
        with self._explained():
            self._client = _connect(url, self._place, timeout_s, retry, max_connections)

    @property
    def local(self) -> bool:
        return False

    def open_namespace(self, namespace: Namespace) -> None:
        RedisKeys(namespace.version)
        field = namespace.version.encode()
        _, stored = self._run(
            [
                ("HSETNX", RedisKeys.NAMESPACES, field, pack_namespace(namespace)),
                ("HGET", RedisKeys.NAMESPACES, field),
            ]
        )
        check_same_namespace(namespace, stored)

    def namespaces(self) -> list[Namespace]:
        (descriptions,) = self._run([("HVALS", RedisKeys.NAMESPACES)])
        return sorted(map(unpack_namespace, descriptions), key=attrgetter("version"))

    def drop_namespace(self, version: str) -> int:
        keys = RedisKeys(version)
        self._run([("UNLINK", keys.shards)])
        self._run(("UNLINK", key) for key in self._scan(keys.texts_pattern()))
        for side in Side:
            self._run(("UNLINK", key) for key in self._scan(keys.reviews_pattern(side)))
        removed: int = sum(self._run(("UNLINK", key) for key in self._scan(keys.states_pattern())))
        # Without its feed, whoever follows it keeps nothing of what was here.
        self._run([("UNLINK", keys.changes)])
        # Last, so that a drop cut short still shows as a namespace to drop.
        self._run([("HDEL", RedisKeys.NAMESPACES, version.encode())])
        return removed

    def put(self, version: str, reviews: Sequence[tuple[ReviewEntry, bytes]]) -> Revision:
        keys = RedisKeys(version)
        for entry, state in reviews:
            check_state_size(entry.review_id, state)
        lines = [
            ("HSET", keys.reviews(side, side.entity(entry)), identifier_bytes(entry.review_id), pack_line(entry, side))
            for entry, _ in reviews
            for side in Side
        ]
        states = [("SET", keys.state(entry.review_id), state) for entry, state in reviews]
        self._run(chain(states, (("UNLINK", keys.text(entry.review_id)) for entry, _ in reviews)))
        self._run(lines)
        return self._announce(keys, marks_of(entry for entry, _ in reviews))

    def delete(self, version: str, entries: Sequence[ReviewEntry]) -> Revision:
        keys = RedisKeys(version)
        self._run(
            ("HDEL", keys.reviews(side, side.entity(entry)), identifier_bytes(entry.review_id))
            for entry in entries
            for side in Side
        )
        self._run(
            ("UNLINK", key) for entry in entries for key in (keys.text(entry.review_id), keys.state(entry.review_id))
        )
        return self._announce(keys, marks_of(entries))

    def put_texts(self, version: str, texts: Sequence[tuple[str, str]]) -> None:
        keys = RedisKeys(version)
        self._run(("SET", keys.text(review_id), pack_text(text)) for review_id, text in texts)

    def texts(self, version: str, review_ids: Sequence[str]) -> list[str | None]:
        keys = RedisKeys(version)
        found = self._run(("GET", keys.text(review_id)) for review_id in review_ids)
        return [
            None if packed is None else unpack_text(packed, review_id)
            for review_id, packed in zip(review_ids, found, strict=True)
        ]

    def changes(self, version: str, since: Revision | None) -> Changes:
        key = RedisKeys(version).changes
        if since is None:
            return Changes(revision=self._end_of_feed(version), marks=None)
        # From ``since`` itself on: where the entry it stands for is gone, so may be others after it.
        newest, entries = self._run(
            [
                ("XREVRANGE", key, "+", "-", "COUNT", "1"),
                ("XRANGE", key, str(since), "+", "COUNT", str(_CHANGES_AT_ONCE)),
            ]
        )
        told = [_revision(identifier) for identifier, _ in entries]
        if not told or told[0] != since or told[-1] < _revision(newest[0][0]):
            return Changes(revision=self._end_of_feed(version), marks=None)
        marks: set[bytes] = set()
        for _, fields in entries[1:]:
            marks |= unpack_marks(fields[_MARKS])
        return Changes(revision=told[-1], marks=frozenset(marks))

    def candidate_sets(self) -> list[str]:
        (names,) = self._run([("HKEYS", RedisKeys.CANDIDATES)])
        return sorted(name.decode() for name in names)

    def put_candidates(self, name: str, items: Sequence[str]) -> None:
        self._run([("HSET", RedisKeys.CANDIDATES, identifier_bytes(name), pack_candidates(items))])

    def candidates(self, name: str) -> list[str] | None:
        (packed,) = self._run([("HGET", RedisKeys.CANDIDATES, identifier_bytes(name))])
        return None if packed is None else unpack_candidates(packed, name)

    def delete_candidates(self, name: str) -> bool:
        (removed,) = self._run([("HDEL", RedisKeys.CANDIDATES, identifier_bytes(name))])
        return bool(removed)

    def missing(self, version: str, entries: Sequence[ReviewEntry]) -> list[bool]:
        keys = RedisKeys(version)
        commands: list[_Command] = []
        for entry in entries:
            commands.append(("EXISTS", keys.state(entry.review_id)))
            commands += [
                ("HEXISTS", keys.reviews(side, side.entity(entry)), identifier_bytes(entry.review_id)) for side in Side
            ]
        found = self._run(commands)
        return [not all(found[first : first + 3]) for first in range(0, len(found), 3)]

    def states(self, version: str, review_ids: Sequence[str]) -> list[bytes | None]:
        keys = RedisKeys(version)
        wanted = [keys.state(review_id) for review_id in review_ids]
        if self._is_cluster:
            return self._run(("GET", key) for key in wanted)
        # Half the time of a GET each.
        parts = range(0, len(wanted), _STATES_PER_COMMAND)
        return list(chain.from_iterable(self._run(("MGET", *wanted[at : at + _STATES_PER_COMMAND]) for at in parts)))

    def user_reviews(self, version: str, users: Sequence[str]) -> list[list[ReviewEntry]]:
        return self.review_lists(version, users=users, items=())[0]

    def item_reviews(self, version: str, items: Sequence[str]) -> list[list[ReviewEntry]]:
        return self.review_lists(version, users=(), items=items)[1]

    def review_lists(
        self, version: str, *, users: Sequence[str], items: Sequence[str]
    ) -> tuple[list[list[ReviewEntry]], list[list[ReviewEntry]]]:
        keys = RedisKeys(version)
        owners = [*((Side.USER, user) for user in users), *((Side.ITEM, item) for item in items)]
        hashes = self._run(("HVALS", keys.reviews(side, entity)) for side, entity in owners)
        lists = [
            sorted((unpack_line(line, side, entity) for line in lines), key=attrgetter("recency"), reverse=True)
            for (side, entity), lines in zip(owners, hashes, strict=True)
        ]
        return lists[: len(users)], lists[len(users) :]

    def users(self, version: str) -> list[str]:
        return self._entities(version, Side.USER)

    def items(self, version: str) -> list[str]:
        return self._entities(version, Side.ITEM)

    def state_sizes(self, version: str) -> Iterator[tuple[str, int]]:
        keys = self._scan(RedisKeys(version).states_pattern())
        while found := list(islice(keys, _KEYS_PER_SCAN)):
            sizes = self._run(("STRLEN", key) for key in found)
            # A size of 0 is a key that has gone since the scan saw it: no state is empty.
            yield from ((RedisKeys.name(key), size) for key, size in zip(found, sizes, strict=True) if size)

    def delete_states(self, version: str, review_ids: Sequence[str]) -> Revision:
        keys = RedisKeys(version)
        self._run(("UNLINK", keys.state(review_id)) for review_id in review_ids)
        return self._announce(keys, map(state_mark, review_ids))

    def finish_shard(self, version: str, shard: FinishedShard) -> None:
        self._run([("SADD", RedisKeys(version).shards, pack_shard(shard))])

    def finished_shards(self, version: str) -> list[FinishedShard]:
        (packed,) = self._run([("SMEMBERS", RedisKeys(version).shards)])
        return sorted(map(unpack_shard, packed))

    def list_lengths(self, version: str) -> Iterator[tuple[Side, str, int]]:
        keys = RedisKeys(version)
        for side in Side:
            found = self._scan(keys.reviews_pattern(side))
            while page := list(islice(found, _KEYS_PER_SCAN)):
                lengths = self._run(("HLEN", key) for key in page)
                for key, length in zip(page, lengths, strict=True):
                    yield side, keys.name(key), length

    def hold(self, version: str, holder: str, seconds: float) -> None:
        self._run([("SET", RedisKeys(version).held(holder), b"", "PX", str(round(1000 * seconds)))])

    def release(self, version: str, holder: str) -> None:
        self._run([("UNLINK", RedisKeys(version).held(holder))])

    def holders(self, version: str) -> list[str]:
        keys = RedisKeys(version)
        return sorted({keys.name(key) for key in self._scan(keys.held_pattern())})

    def ping(self) -> None:
        with self._explained():
            self._client.ping()

    def close(self) -> None:
        self._client.close()

    def _announce(self, keys: RedisKeys, marks: Iterable[bytes]) -> Revision:
        """After the write it tells of, in a round trip of its own: else a cluster might do it before."""
        try:
            (identifier,) = self._run([_entry(keys.changes, pack_marks(marks))])
        except StoreError as error:
            if not isinstance(error.__cause__, refusals.OutOfMemoryError):
                raise
            # A server without memory still deletes. A feed that is gone tells its followers: anything may have changed.
            newest, _ = self._run([("XREVRANGE", keys.changes, "+", "-", "COUNT", "1"), ("UNLINK", keys.changes)])
            last = _revision(newest[0][0]) if newest else Revision(0)
            return Revision(last.major, last.minor + 1)
        return _revision(identifier)

    def _end_of_feed(self, version: str) -> Revision | None:
        """The last position; None where there is no feed to follow and none can be begun."""
        key = RedisKeys(version).changes
        newest, declared = self._run(
            [("XREVRANGE", key, "+", "-", "COUNT", "1"), ("HEXISTS", RedisKeys.NAMESPACES, version.encode())]
        )
        if newest:
            return _revision(newest[0][0])
        if not declared:
            return None
        try:
            (identifier,) = self._run([_entry(key, b"")])
        except StoreUnavailableError:
            raise
        except StoreError:  # no memory, or no right to write
            return None
        return _revision(identifier)

    def _entities(self, version: str, side: Side) -> list[str]:
        keys = RedisKeys(version)
        # A scan may name a key twice while the server rehashes.
        return sorted({keys.name(key) for key in self._scan(keys.reviews_pattern(side))})

    def _scan(self, pattern: str) -> Iterator[bytes]:
        with self._explained():
            yield from self._client.scan_iter(match=pattern, count=_KEYS_PER_SCAN)

    def _run(self, commands: Iterable[_Command], per_pipeline: int = _COMMANDS_PER_PIPELINE) -> list[Any]:
        """The replies of all commands, in order. The first refusal raises, after its pipeline has run."""
        replies: list[Any] = []
        for chunk in _chunks(commands, per_pipeline):
            with self._explained(), self._client.pipeline(transaction=False) as pipeline:
                for command in chunk:
                    pipeline.execute_command(*command)
                answers = pipeline.execute(raise_on_error=False)
            for command, answer in zip(chunk, answers, strict=True):
                if isinstance(answer, Exception):
                    raise self._explanation(answer, command) from answer
            replies += answers
        return replies

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (refusals.RedisError, refusals.RedisClusterException, OSError) as error:
            raise self._explanation(error) from error

    def _explanation(self, error: Exception, command: _Command = ()) -> StoreError:
        if isinstance(error, _CREDENTIALS):
            return StoreError(f"{self._place} refuses the credentials ({error}): check those in the store URL")
        if isinstance(error, _UNREACHABLE):
            return StoreUnavailableError(f"{self._place} cannot be reached: {error}")
        if isinstance(error, refusals.OutOfMemoryError):
            return StoreError(
                f"{self._place} is out of memory: raise its maxmemory, drop an old namespace, or use a smaller codec"
            )
        if isinstance(error, refusals.ReadOnlyError):
            return StoreError(f"{self._place} is a read-only replica: put the primary in the store URL")
        what = " ".join(part.decode() if isinstance(part, bytes) else part for part in command[:2])
        return StoreError(f"{self._place} refused {what or 'a command'}: {error}")


def _entry(feed: bytes, announcement: bytes) -> _Command:
    return ("XADD", feed, "MAXLEN", "~", str(REMEMBERED_CHANGES), "*", _MARKS, announcement)


def _revision(identifier: bytes) -> Revision:
    return Revision.parse(identifier.decode())


def _connect(url: str, place: str, timeout_s: float, retry: Retry, max_connections: int) -> Redis | RedisCluster:
    scheme, rest = url.split("://", 1)
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "max_connections": max_connections,
        "retry": retry,
    }
    try:
        if scheme.endswith(_CLUSTER):
            return RedisCluster.from_url(f"{scheme.removesuffix(_CLUSTER)}://{rest}", **options)
        pool = BlockingConnectionPool.from_url(url, timeout=timeout_s, **options)
        pool.connection_class(**pool.connection_kwargs)  # an unknown option would else fail on first use
    except (TypeError, ValueError):
        # Without the cause: it may quote a password that holds a slash.
        raise ConfigError(f"the store URL of {place} has a malformed option after its '?'") from None
    return Redis.from_pool(pool)


def _place(url: str) -> str:
    """Names the server in messages, without credentials."""
    try:
        parts = urlsplit(url)
        if parts.scheme == "unix":
            return f"Redis at {parts.path}"
        return f"Redis at {parts.hostname or 'localhost'}:{parts.port or 6379}"
    except ValueError:
        # Without the cause: what stands at the port's place may be a password that holds a slash.
        raise ConfigError(
            "the store URL has no readable host and port: percent-escape the characters of its password"
        ) from None


def _chunks(commands: Iterable[_Command], limit: int) -> Iterator[list[_Command]]:
    """Consecutive runs of at most ``limit`` commands and, unless one alone is larger, 64 MiB."""
    chunk: list[_Command] = []
    size = 0
    for command in commands:
        grown = size + sum(map(len, command))
        if chunk and (len(chunk) == limit or grown > _BYTES_PER_PIPELINE):
            yield chunk
            chunk, grown = [], grown - size
        chunk.append(command)
        size = grown
    if chunk:
        yield chunk
