"""Writes that return once replicas have received them, so that a failover loses no acknowledged write."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from redis import Redis, RedisCluster, exceptions

from ubert_model.errors import UnconfirmedWriteError
from ubert_model.states.redis_address import RedisAddress
from ubert_model.states.redis_client import Client
from ubert_model.states.redis_errors import Command

_ATTEMPTS = 3
_RETRIED = (exceptions.AskError, exceptions.ClusterError, exceptions.TryAgainError, exceptions.ConnectionError)


class ConfirmedWrites:
    """Sends commands to each server over one connection, followed by a WAIT.

    On another connection, or to another server, a WAIT may succeed although a failover has lost the write. redis-py's
    cluster pipeline follows redirections without reporting them, so here it only refreshes the map of slots: whatever
    it wrote is written once more, to the server that owns the slot now, and confirmed there.
    """

    def __init__(
        self, client: Client, address: RedisAddress, *, within_s: float, send: Callable[[list[Command]], list[Any]]
    ) -> None:
        self._client = client
        self._address = address
        self._within_ms = max(1, round(1000 * within_s))
        self._send = send

    def send(self, commands: list[Command]) -> list[Any]:
        """The replies, in order; the error of a command that was refused stands in the place of its reply.

        Raises ``UnconfirmedWriteError``, and the library's own error if a server cannot be reached.
        """
        replies: list[Any] = [None] * len(commands)
        pending = list(range(len(commands)))
        migrated: Mapping[int, Redis] = {}
        for attempt in range(_ATTEMPTS):
            if attempt:
                self._send([commands[index] for index in pending])
            for (server, asking), indexes in self._by_server(commands, pending, migrated).items():
                confirmed = self._send_and_wait(server, [commands[index] for index in indexes], asking=asking)
                for index, reply in zip(indexes, confirmed, strict=True):
                    replies[index] = reply
            pending = [index for index in pending if isinstance(replies[index], _RETRIED)]
            if not pending:
                break
            migrated = self._migrated({index: replies[index] for index in pending})
        return replies

    def _by_server(
        self, commands: list[Command], pending: list[int], migrated: Mapping[int, Redis]
    ) -> dict[tuple[Redis, bool], list[int]]:
        """The pending commands' indexes by server, and whether they need an ASKING there."""
        found: dict[tuple[Redis, bool], list[int]] = defaultdict(list)
        for index in pending:
            if index in migrated:
                found[migrated[index], True].append(index)
            else:
                found[self._owner(commands[index][1]), False].append(index)
        return found

    def _owner(self, key: str | bytes) -> Redis:
        if isinstance(self._client, RedisCluster):
            return self._client.get_redis_connection(self._client.get_node_from_key(key))
        return self._client

    def _migrated(self, replies: Mapping[int, Exception]) -> dict[int, Redis]:
        """The commands whose key has migrated before its slot, by index, and the server that holds the key now."""
        found: dict[int, Redis] = {}
        for index, reply in replies.items():
            # MovedError is a subclass of AskError, but the refreshed map of slots is all that it needs.
            if isinstance(self._client, RedisCluster) and type(reply) is exceptions.AskError:
                node = self._client.get_node(reply.host, reply.port)
                if node is not None:
                    found[index] = self._client.get_redis_connection(node)
        return found

    def _send_and_wait(self, server: Redis, commands: list[Command], *, asking: bool) -> list[Any]:
        required = self._address.wait_replicas
        try:
            with server.pipeline(transaction=False) as pipeline:
                for command in commands:
                    if asking:
                        pipeline.execute_command("ASKING")
                    pipeline.execute_command(*command)
                pipeline.execute_command("WAIT", required, self._within_ms)
                *replies, confirmed = pipeline.execute(raise_on_error=False)
        except exceptions.ConnectionError as error:
            if isinstance(self._client, Redis):
                raise
            return [error] * len(commands)
        if asking:
            replies = replies[1::2]
        if isinstance(confirmed, Exception):
            # A primary that has become a replica refuses the WAIT and the writes; their errors name the new primary.
            if not all(isinstance(reply, Exception) for reply in replies):
                raise confirmed
        elif confirmed < required:
            raise UnconfirmedWriteError(
                f"{self._address.display_name} wrote, but {confirmed} of the {required} replicas that wait_replicas "
                f"asks for confirmed it within {self._within_ms} ms, so a failover may lose it: repeat the write"
            )
        return replies
