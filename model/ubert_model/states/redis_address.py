"""Redis URLs, parsed: the servers, their topology, and how many replicas have to confirm a write."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from ubert_model.errors import ConfigError


class Topology(StrEnum):
    """How the servers of a URL work together; the value follows the plus in its scheme."""

    SERVER = ""
    CLUSTER = "cluster"
    SENTINEL = "sentinel"


REDIS_SCHEMES = (
    "redis",
    "rediss",
    "unix",
    "redis+cluster",
    "rediss+cluster",
    "redis+sentinel",
    "rediss+sentinel",
)
_DEFAULT_PORT = {Topology.SERVER: 6379, Topology.CLUSTER: 6379, Topology.SENTINEL: 26379}
_SENTINEL_CREDENTIALS = ("username", "password")


@dataclass(frozen=True, kw_only=True)
class RedisAddress:
    """A parsed Redis URL.

    ``hosts``: the server, or some of a cluster's nodes or of the sentinels, any of which knows the others; empty for a
    Unix socket. ``service``: the sentinels' name for the primary. ``client_url``: the URL for the client library, with
    the first host, the credentials and the library's own options.
    """

    topology: Topology
    hosts: tuple[tuple[str, int], ...]
    display_name: str
    """Names the servers in messages, without credentials."""
    client_url: str = field(repr=False)
    service: str = ""
    sentinel_credentials: dict[str, str] = field(default_factory=dict, repr=False)
    wait_replicas: int = 0
    """How many replicas must have received a write before it counts as done."""
    patience_s: float = 0.0
    """How long a call is retried while the servers are unavailable."""

    @classmethod
    def parse(cls, url: str) -> Self:
        """Parse a URL of one of ``REDIS_SCHEMES``. Raises ``ConfigError``, which never quotes a password."""
        full_scheme, _, rest = url.partition("://")
        # A list of hosts is no authority: newer Pythons refuse one with an IPv6 address that is not the first.
        hosts_of_url, *tail = re.split(r"(?=[/?#])", rest, maxsplit=1)
        parts = urlsplit(f"{full_scheme}://{''.join(tail)}")
        scheme, _, kind = full_scheme.partition("+")
        topology = Topology(kind)
        credentials, at, netloc = hosts_of_url.rpartition("@")
        hosts = () if scheme == "unix" else tuple(_host(one, _DEFAULT_PORT[topology]) for one in netloc.split(","))
        display_name = _display_name(hosts) or f"Redis at {parts.path}"
        if topology is Topology.SERVER and len(hosts) > 1:
            raise ConfigError(f"the store URL of {display_name} names several servers: begin it with redis+cluster://")
        path, service = parts.path, ""
        if topology is Topology.SENTINEL:
            service, _, database = path.removeprefix("/").partition("/")
            path = f"/{database}"
            if not service:
                raise ConfigError(f"the store URL of {display_name} does not name the sentinels' primary: add /NAME")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        wait_replicas = options.pop("wait_replicas", "0")
        patience = options.pop("patience", "0")
        sentinel_credentials = {
            name: options.pop(f"sentinel_{name}") for name in _SENTINEL_CREDENTIALS if f"sentinel_{name}" in options
        }
        authority = _authority(hosts[0]) if hosts else netloc
        client_url = f"{scheme}://{credentials}{at}{authority}{path}" + (f"?{urlencode(options)}" if options else "")
        _split(client_url)
        return cls(
            topology=topology,
            hosts=hosts,
            display_name=display_name,
            client_url=client_url,
            service=service,
            sentinel_credentials=sentinel_credentials,
            wait_replicas=int(_number("wait_replicas", wait_replicas, display_name, whole=True)),
            patience_s=_number("patience", patience, display_name),
        )


def _host(text: str, default_port: int) -> tuple[str, int]:
    parts = _split(f"//{text}")
    return parts.hostname or "localhost", parts.port or default_port


def _split(url: str) -> SplitResult:
    """The parts of a URL with one host. Raises ``ConfigError`` if it or its port cannot be read."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # read here: only then is it checked
        return parts
    except ValueError:
        # Without the cause: it quotes the port, which may be part of a password that holds a slash.
        raise ConfigError(
            "the store URL has no readable host and port: percent-escape the special characters of its password"
        ) from None


def _authority(host: tuple[str, int]) -> str:
    name, port = host
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def _display_name(hosts: Sequence[tuple[str, int]]) -> str:
    if not hosts:
        return ""
    return f"Redis at {_authority(hosts[0])}" + (f" and {len(hosts) - 1} more" if hosts[1:] else "")


def _number(option: str, text: str, display_name: str, *, whole: bool = False) -> float:
    try:
        number = float(int(text) if whole else float(text))
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        kind = "a whole number" if whole else "a number of seconds"
        raise ConfigError(f"{option}={text} in the store URL of {display_name}: give {kind}, 0 or more")
    return number
