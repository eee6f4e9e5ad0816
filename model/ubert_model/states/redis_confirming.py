"""Writes that return once replicas have them, so that no failover loses what was acknowledged."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from redis import Redis, RedisCluster
from redis import exceptions as refusals

from ubert_model.errors import UnconfirmedWriteError
from ubert_model.states.redis_address import RedisAddress
from ubert_model.states.redis_client import Client
from ubert_model.states.redis_refusals import Command

_ATTEMPTS = 3
_ELSEWHERE = (refusals.AskError, refusals.ClusterError, refusals.TryAgainError, refusals.ConnectionError)


class ConfirmedWrites:
    """Sends commands, to each server with a WAIT behind them over the same connection.

    Over another connection, or to another server, a WAIT would be answered even where a failover has lost the write.
    So the library's own cluster pipeline, which tells of no redirection it has followed, serves here only to follow
    them and to learn from them; what it wrote so is written again and confirmed where it belongs now.
    """

    def __init__(
        self, client: Client, address: RedisAddress, *, within_s: float, send: Callable[[list[Command]], list[Any]]
    ) -> None:
        self._client = client
        self._address = address
        self._within_ms = max(1, round(1000 * within_s))
        self._send = send

    def send(self, commands: list[Command]) -> list[Any]:
        """The replies, in order; a refusal as an exception among them.

        Raises ``UnconfirmedWriteError``, and what the library raises where a server cannot be reached.
        """
        replies: list[Any] = [None] * len(commands)
        left = list(range(len(commands)))
        ahead: Mapping[int, Redis] = {}
        for attempt in range(_ATTEMPTS):
            if attempt:
                self._send([commands[place] for place in left])
            for (server, asking), places in self._by_server(commands, left, ahead).items():
                confirmed = self._confirmed_by(server, [commands[place] for place in places], asking=asking)
                for place, reply in zip(places, confirmed, strict=True):
                    replies[place] = reply
            left = [place for place in left if isinstance(replies[place], _ELSEWHERE)]
            if not left:
                break
            ahead = self._gone_ahead({place: replies[place] for place in left})
        return replies

    def _by_server(
        self, commands: list[Command], places: list[int], ahead: Mapping[int, Redis]
    ) -> dict[tuple[Redis, bool], list[int]]:
        """Which commands go to which server, by their place; and whether each needs an ASKING there."""
        found: dict[tuple[Redis, bool], list[int]] = defaultdict(list)
        for place in places:
            if place in ahead:
                found[ahead[place], True].append(place)
            else:
                found[self._owner(commands[place][1]), False].append(place)
        return found

    def _owner(self, key: str | bytes) -> Redis:
        if isinstance(self._client, RedisCluster):
            return self._client.get_redis_connection(self._client.get_node_from_key(key))
        return self._client

    def _gone_ahead(self, replies: Mapping[int, Exception]) -> dict[int, Redis]:
        """The commands whose key has gone ahead of its slot, and the server that has it now."""
        found: dict[int, Redis] = {}
        for place, reply in replies.items():
            # A MovedError is an AskError, too, and needs nothing but the map.
            if isinstance(self._client, RedisCluster) and type(reply) is refusals.AskError:
                node = self._client.get_node(reply.host, reply.port)
                if node is not None:
                    found[place] = self._client.get_redis_connection(node)
        return found

    def _confirmed_by(self, server: Redis, commands: list[Command], *, asking: bool) -> list[Any]:
        wanted = self._address.wait_replicas
        try:
            with server.pipeline(transaction=False) as pipeline:
                for command in commands:
                    if asking:
                        pipeline.execute_command("ASKING")
                    pipeline.execute_command(*command)
                pipeline.execute_command("WAIT", wanted, self._within_ms)
                *replies, confirmed = pipeline.execute(raise_on_error=False)
        except refusals.ConnectionError as error:
            if isinstance(self._client, Redis):
                raise
            return [error] * len(commands)
        if asking:
            replies = replies[1::2]
        if isinstance(confirmed, Exception):
            # A server that has become a replica since refuses the WAIT as well as the writes, and says who to turn to.
            if not all(isinstance(reply, Exception) for reply in replies):
                raise confirmed
        elif confirmed < wanted:
            raise UnconfirmedWriteError(
                f"{self._address.place} wrote, but {confirmed} of the {wanted} replicas that wait_replicas asks for "
                f"confirmed it within {self._within_ms} ms, so a failover may lose it: repeat the write"
            )
        return replies
