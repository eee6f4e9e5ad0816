"""Clients of redis-py for a parsed address."""

from collections.abc import Callable
from typing import Any

from redis import BlockingConnectionPool, Redis, RedisCluster, exceptions
from redis.backoff import ExponentialBackoff
from redis.cluster import ClusterNode
from redis.connection import SSLConnection, parse_url
from redis.retry import Retry
from redis.sentinel import Sentinel

from ubert_model.errors import ConfigError
from ubert_model.states.redis_address import RedisAddress, Topology

Client = Redis | RedisCluster

_MAX_CONNECTIONS = 64


def client_factory(address: RedisAddress, *, timeout_s: float, retries: int) -> Callable[[], Client]:
    """A function that makes a client of these servers. Only a cluster's client connects at once, to learn the nodes.

    ``timeout_s`` bounds each wait for a server, ``retries`` the attempts after a broken connection. A timeout is not
    retried: that would only add load to a slow server.

    Raises ``ConfigError`` for an option that is unknown or malformed, or that turns replies into text.
    """
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "max_connections": _MAX_CONNECTIONS,
        "retry": Retry(ExponentialBackoff(cap=0.5, base=0.05), retries, supported_errors=(exceptions.ConnectionError,)),
    }
    try:
        pool = BlockingConnectionPool.from_url(address.client_url, timeout=timeout_s, **options)
        pool.connection_class(**pool.connection_kwargs)  # so that an unknown option fails now, not on first use
    except (TypeError, ValueError):
        # Without the cause: it may quote a password that holds a slash.
        raise ConfigError(f"the store URL of {address.display_name} has a malformed option after its '?'") from None
    if pool.connection_kwargs.get("decode_responses"):
        raise ConfigError(
            f"the store URL of {address.display_name} has decode_responses: leave it out, states are bytes"
        )
    if address.topology is Topology.CLUSTER:
        return lambda: _cluster_client(address, options)
    if address.topology is Topology.SENTINEL:
        return lambda: _sentinel_client(address, options)
    return lambda: Redis.from_pool(pool)


def _cluster_client(address: RedisAddress, options: dict[str, Any]) -> RedisCluster:
    others = [ClusterNode(host, port) for host, port in address.hosts[1:]]
    return RedisCluster.from_url(address.client_url, startup_nodes=others, **options)


def _sentinel_client(address: RedisAddress, options: dict[str, Any]) -> Redis:
    """A client of the primary. Connections to sentinels differ from those to servers by the credentials alone."""
    url_options = dict(parse_url(address.client_url))
    url_options["ssl"] = url_options.pop("connection_class", None) is SSLConnection
    for name in ("host", "port"):
        url_options.pop(name, None)
    server_options = options | url_options
    servers_only = {"db", "username", "password", "max_connections"}
    sentinel_options = {name: value for name, value in server_options.items() if name not in servers_only}
    sentinel_options |= address.sentinel_credentials
    sentinel = Sentinel(address.hosts, sentinel_kwargs=sentinel_options, **server_options)
    primary: Redis = sentinel.master_for(address.service)
    return primary
