"""A real Redis Cluster of two primaries for tests."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import redis

from support.redis_server import RedisServer

_SLOTS = 16_384
_SECONDS_TO_AGREE = 20.0


@contextmanager
def redis_cluster() -> Iterator[str]:
    """The ``redis+cluster://`` URL of two nodes with half the slots each, so that keys really lie apart."""
    with ExitStack() as stack:
        servers = [stack.enter_context(RedisServer("--cluster-enabled", "yes")) for _ in range(2)]
        clients = [stack.enter_context(redis.Redis(port=server.port)) for server in servers]
        for half, client in enumerate(clients):
            client.cluster("ADDSLOTS", *range(half * _SLOTS // 2, (half + 1) * _SLOTS // 2))
        clients[0].cluster("MEET", "127.0.0.1", servers[1].port)
        _wait_until_both_agree(clients)
        yield servers[0].url.replace("redis://", "redis+cluster://")


def _wait_until_both_agree(clients: list[redis.Redis]) -> None:
    deadline = time.monotonic() + _SECONDS_TO_AGREE
    while time.monotonic() < deadline:
        states = [client.cluster("INFO") for client in clients]
        if all(s["cluster_state"] == "ok" and s["cluster_slots_assigned"] == str(_SLOTS) for s in states):
            return
        time.sleep(0.05)
    raise RuntimeError(f"the cluster did not form: {states}")
