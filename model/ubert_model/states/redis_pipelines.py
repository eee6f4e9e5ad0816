"""Commands to Redis and their replies, in pipelines without transactions."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from redis import Redis, RedisCluster, exceptions

from ubert_model.errors import StoreUnavailableError
from ubert_model.states.redis_address import RedisAddress, Topology
from ubert_model.states.redis_client import Client, client_factory
from ubert_model.states.redis_confirmed_writes import ConfirmedWrites
from ubert_model.states.redis_errors import CLIENT_ERRORS, Command, store_error

_COMMANDS_PER_PIPELINE = 10_000
_BYTES_PER_PIPELINE = 64 * 1024 * 1024
_KEYS_PER_SCAN = 1_000
_RETRY_PAUSE_S = 0.2

_Send = Callable[[list[Command]], list[Any]]


class RedisPipelines:
    """Sends commands to the servers of one address. Thread-safe; connects on first use.

    The second word of each command is a key. To a cluster, which routes the command by it, it must be the only one.
    """

    def __init__(self, address: RedisAddress, *, timeout_s: float, retries: int) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._connect = client_factory(address, timeout_s=timeout_s, retries=retries)
        self._connecting = Lock()
        self._connected: Client | None = None

    @property
    def is_cluster(self) -> bool:
        """Are the keys spread over several servers?"""
        return self._address.topology is Topology.CLUSTER

    def read(self, commands: Iterable[Command]) -> list[Any]:
        """The replies of all commands, in order. The first refusal raises, after its pipeline has run."""
        return self._run(commands, self._send)

    def write(self, commands: Iterable[Command]) -> list[Any]:
        """As ``read``, but returns only once as many replicas as the address asks for have received the writes.

        A command may be executed twice. Raises ``UnconfirmedWriteError`` if replicas do not confirm in time.
        """
        return self._run(commands, self._send_confirmed if self._address.wait_replicas else self._send)

    def scan(self, pattern: str) -> Iterator[bytes]:
        """The keys that match. A key that a cluster moves meanwhile may come twice, or not at all.

        After a restart, a failover or a resharding the cursors would pass over keys. Then the scan starts over, if
        the address asks for patience, so that keys come twice; else it ends in ``StoreUnavailableError``.
        """
        until: float | None = None
        while True:
            try:
                history = self.history(pattern.encode())
                with self._translated_errors():
                    yield from self._client.scan_iter(match=pattern, count=_KEYS_PER_SCAN)
                if self.history(pattern.encode()) == history:
                    return
                raise StoreUnavailableError(
                    f"{self._address.display_name} was restarted, failed over or resharded while its keys were listed: "
                    "try again"
                )
            except StoreUnavailableError as error:
                until = self._pause_before_retry(error, until)

    def history(self, key: bytes) -> str:
        """An identifier that changes when a server that holds data is restarted or replaced.

        For a cluster it is the epoch, which every failover increases, as seen by the server of ``key``. Empty if the
        server does not permit the question.
        """
        with self._translated_errors():
            client = self._client
            try:
                if isinstance(client, RedisCluster):
                    cluster = client.cluster_info(target_nodes=client.get_node_from_key(key))
                    return str(cluster["cluster_current_epoch"])
                return str(client.info("server")["run_id"])
            except exceptions.NoPermissionError:
                return ""

    def ping(self) -> None:
        """Ping every server that owns keys."""
        with self._translated_errors():
            client = self._client
            if isinstance(client, RedisCluster):
                client.ping(target_nodes=RedisCluster.PRIMARIES)
            else:
                client.ping()

    def close(self) -> None:
        with self._connecting:
            if self._connected is not None:
                self._connected.close()

    @property
    def _client(self) -> Client:
        with self._connecting:
            if self._connected is None:
                self._connected = self._connect()
            return self._connected

    def _run(self, commands: Iterable[Command], send: _Send) -> list[Any]:
        replies: list[Any] = []
        for chunk in chunks(commands, _COMMANDS_PER_PIPELINE):
            replies += self._run_with_retries(chunk, send)
        return replies

    def _run_with_retries(self, chunk: list[Command], send: _Send) -> list[Any]:
        until: float | None = None
        while True:
            try:
                return self._run_once(chunk, send)
            except StoreUnavailableError as error:
                until = self._pause_before_retry(error, until)

    def _pause_before_retry(self, error: StoreUnavailableError, until: float | None) -> float:
        """Wait a moment, and return when retries end: ``until``, None before the first. Raises ``error`` then."""
        now = time.monotonic()
        until = now + self._address.patience_s if until is None else until
        if now >= until:
            raise error
        time.sleep(_RETRY_PAUSE_S)
        return until

    def _run_once(self, chunk: list[Command], send: _Send) -> list[Any]:
        with self._translated_errors():
            replies = send(chunk)
        for command, reply in zip(chunk, replies, strict=True):
            if isinstance(reply, exceptions.ReadOnlyError) and isinstance(self._client, Redis):
                # A failover may have given the address to another server, while connections stay with the old one.
                self._client.connection_pool.disconnect(inuse_connections=False)
            if isinstance(reply, Exception):
                raise store_error(reply, self._address, command) from reply
        return replies

    def _send(self, chunk: list[Command]) -> list[Any]:
        with self._client.pipeline(transaction=False) as pipeline:
            for command in chunk:
                pipeline.execute_command(*command)
            return pipeline.execute(raise_on_error=False)

    def _send_confirmed(self, chunk: list[Command]) -> list[Any]:
        # Half of the time that a connection waits for a reply, so that the server's answer comes before the timeout.
        writes = ConfirmedWrites(self._client, self._address, within_s=self._timeout_s / 2, send=self._send)
        return writes.send(chunk)

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except CLIENT_ERRORS as error:
            raise store_error(error, self._address) from error
        except AttributeError as error:
            # redis-py's failure when it is redirected to a server that owns no slot yet, so is not in its map of slots.
            if not (self.is_cluster and error.name == "redis_connection" and error.obj is None):
                raise
            raise StoreUnavailableError(
                f"{self._address.display_name}: a key is ahead of its slot, on a server that owns none yet"
            ) from error


def chunks(commands: Iterable[Command], limit: int) -> Iterator[list[Command]]:
    """Consecutive commands, at most ``limit`` and at most 64 MiB a chunk; a command above that has one to itself."""
    chunk: list[Command] = []
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
