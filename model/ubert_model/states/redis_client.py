"""From an address to a client of redis-py."""

from collections.abc import Callable
from typing import Any

from redis import BlockingConnectionPool, Redis, RedisCluster
from redis import exceptions as refusals
from redis.backoff import ExponentialBackoff
from redis.cluster import ClusterNode
from redis.connection import SSLConnection, parse_url
from redis.retry import Retry
from redis.sentinel import Sentinel

from ubert_model.errors import ConfigError
from ubert_model.states.redis_address import Arrangement, RedisAddress

Client = Redis | RedisCluster


def client_maker(
    address: RedisAddress, *, timeout_s: float, retries: int, max_connections: int
) -> Callable[[], Client]:
    """What makes a client of these servers. Only that of a cluster connects when it is made, to learn the nodes.

    ``timeout_s`` bounds each wait for a server, ``retries`` the attempts after a broken connection; a timeout is not
    retried, since a server that is slow is not helped by asking again.

    Raises ``ConfigError`` for an option that is unknown or malformed.
    """
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "max_connections": max_connections,
        "retry": Retry(ExponentialBackoff(cap=0.5, base=0.05), retries, supported_errors=(refusals.ConnectionError,)),
    }
    try:
        pool = BlockingConnectionPool.from_url(address.client_url, timeout=timeout_s, **options)
        pool.connection_class(**pool.connection_kwargs)  # an unknown option would else fail on first use
    except (TypeError, ValueError):
        # Without the cause: it may quote a password that holds a slash.
        raise ConfigError(f"the store URL of {address.place} has a malformed option after its '?'") from None
    if address.arrangement is Arrangement.CLUSTER:
        return lambda: _of_cluster(address, options)
    if address.arrangement is Arrangement.SENTINEL:
        return lambda: _of_sentinels(address, options)
    return lambda: Redis.from_pool(pool)


def _of_cluster(address: RedisAddress, options: dict[str, Any]) -> RedisCluster:
    others = [ClusterNode(host, port) for host, port in address.hosts[1:]]
    return RedisCluster.from_url(address.client_url, startup_nodes=others, **options)


def _of_sentinels(address: RedisAddress, options: dict[str, Any]) -> Redis:
    """Sentinels are spoken to as the servers are, TLS included, but for the credentials."""
    of_url = dict(parse_url(address.client_url))
    of_url["ssl"] = of_url.pop("connection_class", None) is SSLConnection
    for where in ("host", "port"):
        of_url.pop(where, None)
    of_servers = options | of_url
    not_theirs = {"db", "username", "password", "max_connections"}
    of_sentinels = {name: value for name, value in of_servers.items() if name not in not_theirs}
    sentinel = Sentinel(address.hosts, sentinel_kwargs=of_sentinels | address.sentinel_credentials, **of_servers)
    primary: Redis = sentinel.master_for(address.service)
    return primary
