"""Commands to Redis and their replies, in pipelines without transactions."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from redis import RedisCluster
from redis import exceptions as refusals

from ubert_model.errors import StoreUnavailableError
from ubert_model.states.redis_address import Arrangement, RedisAddress
from ubert_model.states.redis_client import Client, client_maker
from ubert_model.states.redis_confirming import ConfirmedWrites
from ubert_model.states.redis_refusals import EVERY_FAILURE, Command, store_error

_COMMANDS_PER_PIPELINE = 10_000
_BYTES_PER_PIPELINE = 64 * 1024 * 1024
_KEYS_PER_SCAN = 1_000
_PAUSE_S = 0.2

_Send = Callable[[list[Command]], list[Any]]


class RedisPipelines:
    """Carries commands to the servers of one address. Thread-safe; connects on first use.

    Each command names one key, as its second word: a cluster may hold the keys anywhere.
    """

    def __init__(self, address: RedisAddress, *, timeout_s: float, retries: int, max_connections: int) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._connect = client_maker(address, timeout_s=timeout_s, retries=retries, max_connections=max_connections)
        self._connecting = Lock()
        self._connected: Client | None = None

    @property
    def spread(self) -> bool:
        """May the keys lie on several servers?"""
        return self._address.arrangement is Arrangement.CLUSTER

    def read(self, commands: Iterable[Command]) -> list[Any]:
        """The replies of all commands, in order. The first refusal raises, after its pipeline has run."""
        return self._run(commands, self._sent)

    def write(self, commands: Iterable[Command]) -> list[Any]:
        """As ``read``. What returns has been received by as many replicas as the address asks for.

        A command may be executed twice. Raises ``UnconfirmedWriteError`` where replicas do not confirm in time.
        """
        return self._run(commands, self._confirmed if self._address.wait_replicas else self._sent)

    def scan(self, pattern: str) -> Iterator[bytes]:
        """The keys that match. One that a cluster moves meanwhile may come twice, or not at all."""
        with self._explained():
            yield from self._client.scan_iter(match=pattern, count=_KEYS_PER_SCAN)

    def history(self, key: bytes) -> str:
        """Changes when a server that held data was restarted, or another one has taken its place.

        Of a cluster: its epoch, as the server of ``key`` knows it, which every failover increases. Empty where the
        server keeps it to itself.
        """
        with self._explained():
            client = self._client
            try:
                if isinstance(client, RedisCluster):
                    told = client.cluster_info(target_nodes=client.get_node_from_key(key))
                    return str(told["cluster_current_epoch"])
                return str(client.info("server")["run_id"])
            except refusals.NoPermissionError:
                return ""

    def ping(self) -> None:
        """Ask every server that answers for keys."""
        with self._explained():
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
            replies += self._patiently(chunk, send)
        return replies

    def _patiently(self, chunk: list[Command], send: _Send) -> list[Any]:
        until = time.monotonic() + self._address.patience_s
        while True:
            try:
                return self._accepted(chunk, send)
            except StoreUnavailableError:
                if time.monotonic() >= until:
                    raise
                time.sleep(_PAUSE_S)

    def _accepted(self, chunk: list[Command], send: _Send) -> list[Any]:
        with self._explained():
            replies = send(chunk)
        for command, reply in zip(chunk, replies, strict=True):
            if isinstance(reply, Exception):
                raise store_error(reply, self._address, command) from reply
        return replies

    def _sent(self, chunk: list[Command]) -> list[Any]:
        with self._client.pipeline(transaction=False) as pipeline:
            for command in chunk:
                pipeline.execute_command(*command)
            return pipeline.execute(raise_on_error=False)

    def _confirmed(self, chunk: list[Command]) -> list[Any]:
        # Half of what a connection waits for a reply, so that the server's own answer comes first.
        writes = ConfirmedWrites(self._client, self._address, within_s=self._timeout_s / 2, send=self._sent)
        return writes.send(chunk)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except EVERY_FAILURE as error:
            raise store_error(error, self._address) from error
        except AttributeError as error:
            # How redis-py fails where it is sent to a server that owns no slot yet, and so is not on its map.
            if not (self.spread and error.name == "redis_connection" and error.obj is None):
                raise
            raise StoreUnavailableError(
                f"{self._address.place}: a key is ahead of its slot, on a server that owns none yet"
            ) from error


def chunks(commands: Iterable[Command], limit: int) -> Iterator[list[Command]]:
    """Consecutive runs of at most ``limit`` commands and, unless one alone is larger, 64 MiB."""
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
