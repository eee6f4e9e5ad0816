"""What a Redis URL says: which servers, how they stand together, and how many replicas a write has to reach."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self
from urllib.parse import parse_qsl, urlencode, urlsplit

from ubert_model.errors import ConfigError


class Arrangement(StrEnum):
    """How the servers of a URL stand together; what follows the plus in its scheme."""

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
_DEFAULT_PORT = {Arrangement.SERVER: 6379, Arrangement.CLUSTER: 6379, Arrangement.SENTINEL: 26379}
_SENTINELS_OWN = ("username", "password")


@dataclass(frozen=True, kw_only=True)
class RedisAddress:
    """A parsed URL.

    ``hosts``: the server; or nodes of a cluster, or sentinels, any of which names all others; none of a Unix socket.
    ``service``: what the sentinels call the primary. ``client_url``: what the client library reads, with the first
    host, the credentials and the library's own options.
    """

    arrangement: Arrangement
    hosts: tuple[tuple[str, int], ...]
    place: str
    """Names the servers in messages, without credentials."""
    client_url: str = field(repr=False)
    service: str = ""
    sentinel_credentials: dict[str, str] = field(default_factory=dict, repr=False)
    wait_replicas: int = 0
    """Replicas that must have received a write before it counts as done."""
    patience_s: float = 0.0
    """How long a call is repeated while the servers are away."""

    @classmethod
    def parse(cls, url: str) -> Self:
        """Raises ``ConfigError``, without quoting what may be a password."""
        parts = urlsplit(url)
        scheme, _, kind = parts.scheme.partition("+")
        arrangement = Arrangement(kind)
        credentials, at, named = parts.netloc.rpartition("@")
        hosts = () if scheme == "unix" else tuple(_host(one, _DEFAULT_PORT[arrangement]) for one in named.split(","))
        place = _place(hosts) or f"Redis at {parts.path}"
        if arrangement is Arrangement.SERVER and len(hosts) > 1:
            raise ConfigError(f"the store URL of {place} names several servers: begin it with redis+cluster://")
        path, service = parts.path, ""
        if arrangement is Arrangement.SENTINEL:
            service, _, database = path.removeprefix("/").partition("/")
            path = f"/{database}"
            if not service:
                raise ConfigError(f"the store URL of {place} lacks what the sentinels call the primary: add /NAME")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        wait_replicas = options.pop("wait_replicas", "0")
        patience = options.pop("patience", "0")
        own = {one: options.pop(f"sentinel_{one}") for one in _SENTINELS_OWN if f"sentinel_{one}" in options}
        authority = _authority(hosts[0]) if hosts else named
        return cls(
            arrangement=arrangement,
            hosts=hosts,
            place=place,
            client_url=f"{scheme}://{credentials}{at}{authority}{path}" + (f"?{urlencode(options)}" if options else ""),
            service=service,
            sentinel_credentials=own,
            wait_replicas=int(_number("wait_replicas", wait_replicas, place, whole=True)),
            patience_s=_number("patience", patience, place),
        )


def _host(text: str, default_port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        return parts.hostname or "localhost", parts.port or default_port
    except ValueError:
        # Without the cause: what stands at the port's place may be a password that holds a slash.
        raise ConfigError(
            "the store URL has no readable host and port: percent-escape the characters of its password"
        ) from None


def _authority(host: tuple[str, int]) -> str:
    name, port = host
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def _place(hosts: Sequence[tuple[str, int]]) -> str:
    if not hosts:
        return ""
    return f"Redis at {_authority(hosts[0])}" + (f" and {len(hosts) - 1} more" if hosts[1:] else "")


def _number(option: str, text: str, place: str, *, whole: bool = False) -> float:
    try:
        number = float(int(text) if whole else float(text))
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        kind = "a whole number" if whole else "a number of seconds"
        raise ConfigError(f"{option}={text} in the store URL of {place}: give {kind}, 0 or more")
    return number
