"""The operator's settings, validated once at the edge."""

import ipaddress
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ubert_model.errors import ConfigError
from ubert_model.states import DEFAULT_CODEC

Device = Literal["auto", "cpu", "cuda"]
FixedRuntime = Literal["onnx", "onnx-tensorrt", "torch", "torch-bf16"]
RuntimeChoice = Literal[FixedRuntime, "auto"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]


class Settings(BaseModel):
    """Settings of one service process. The command line resolves flags > environment > TOML file > these defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: Path
    store: str = Field(repr=False)
    """URL of the state store. It may hold a password, so it is never shown."""
    codec: str = DEFAULT_CODEC
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    """0: the system chooses a free one; the log line ``listening on`` names it."""
    device: Device = "auto"
    runtime: RuntimeChoice = "onnx"
    """What scores: ONNX Runtime, with or without TensorRT; torch; torch with co-matching in bfloat16. ``auto``: the
    fastest, measured at the start, that agrees with ``onnx`` within 0.005 stars (TensorRT, which takes minutes to
    start, is not tried). ONNX Runtime always encodes new reviews."""
    threads: int = Field(default=0, ge=0)
    """Threads of one scoring call; 0: one per physical core."""
    concurrency: int = Field(default=2, ge=1)
    """Worker threads, each of which reads the store and scores one batch at a time."""
    queue_requests: int = Field(default=64, ge=1)
    """Requests that may wait for a thread; beyond that, requests are refused (429)."""
    queue_tokens: int = Field(default=512 * 1024, ge=1)
    """Tokens that all waiting requests may read; beyond that, requests are refused unless nothing else waits."""
    queue_wait_ms: float = Field(default=200.0, ge=0.0)
    """The longest expected wait for a thread; a request that would wait longer is refused unless nothing else waits.
    0: no limit, in overload too; only the numbers of requests and tokens count."""
    overload_wait_ms: float = Field(default=1.0, ge=0.0)
    """The same limit during an overload, which begins with the first refusal. A burst may wait; but a queue that never
    empties would make every request wait."""
    batch_tokens: int = Field(default=32 * 1024, ge=1)
    """Tokens of one batch, which may hold several requests; a request is never split."""
    batch_wait_ms: float = Field(default=0.0, ge=0.0, le=1000.0)
    """How long a free thread waits for more requests before it starts a batch that is not full."""
    request_timeout: float = Field(default=30.0, gt=0.0, le=3600.0)
    """Seconds that a request without ``X-Request-Timeout`` may take."""
    drain_seconds: float = Field(default=2.0, ge=0.0)
    """On SIGTERM, how long to keep open the connections that callers do not close, for requests already on their way.

    Longer than a load balancer takes to notice that ``/readyz`` fails: the one that ships checks once a second."""
    traces: str | None = Field(default=None, repr=False)
    """OTLP/HTTP address that traces are sent to; None: no tracing. It may hold a password, so it is never shown."""
    api_keys: Path | None = None
    """TOML file of API keys, reloaded within seconds of a change; None: no key is needed."""
    allowed_hosts: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")], ...] = ()
    """Names, without port, that callers of a service without API keys may use, beside ``localhost`` and addresses. On
    loopback no other is answered; elsewhere every name is, unless some are given here."""
    resident_bytes: int = Field(default=512 * 1024 * 1024, ge=0)
    """Memory of the in-process cache of review lists and decoded states, half of it for a shadow bundle if there is
    one; 0: no cache."""
    resident_lag: float = Field(default=0.5, ge=0, le=60)
    """Seconds within which a write through another process is seen; 0: at once, for one more round trip to the store
    per 256 pairs."""
    warm_seconds: float = Field(default=30.0, ge=0)
    """How long the cache may be warmed, most reviewed first, before the service is ready; 0: it fills on demand."""
    shadow_bundle: Path | None = None
    """A bundle that rates a sample beside the live one, under the same codec, and can take its place. One that cannot
    be used is left out."""
    shadow_share: float = Field(default=0.1, ge=0.0, le=1.0)
    """The share of rating requests that the shadow bundle rates as well, 32 pairs of each at most; not of those with
    ``user_texts``."""
    texts: bool = False
    """Store the texts of new reviews, as far as the encoder reads them, and show the stored ones."""
    max_body_bytes: int = Field(default=8 * 1024 * 1024, ge=1)
    log_level: LogLevel = "info"
    log_format: LogFormat = "text"
    """``json``: one object per line, with the fields of a request as members."""

    @property
    def checks_hosts(self) -> bool:
        """Are callers refused that use another host name than those allowed?"""
        return self.api_keys is None and (bool(self.allowed_hosts) or _is_loopback(self.host))

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Settings from resolved values. Raises ``ConfigError`` naming the first invalid one."""
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = ".".join(map(str, first["loc"]))
            raise ConfigError(f"{name} = {first['input']!r}: {first['msg']}") from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def read_toml(path: Path) -> dict[str, Any]:
    """Settings in a TOML file, by name; hyphens and underscores are the same.

    Raises ``ConfigError`` if it cannot be read or names a setting that does not exist.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # the last: brackets in brackets
        raise ConfigError(f"configuration file {path}: {error}") from error
    values = {name.replace("-", "_"): value for name, value in table.items()}
    unknown = sorted(set(values) - set(Settings.model_fields))
    if unknown:
        known = ", ".join(sorted(Settings.model_fields))
        raise ConfigError(f"configuration file {path}: unknown setting {', '.join(unknown)}; use {known}")
    return values
