"""What an operator decides, validated once at the edge."""

import tomllib
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ubert_model.errors import ConfigError
from ubert_model.states import DEFAULT_CODEC

Device = Literal["auto", "cpu", "cuda"]
FixedRuntime = Literal["onnx", "onnx-tensorrt", "torch", "torch-bf16"]
RuntimeChoice = Literal["onnx", "onnx-tensorrt", "torch", "torch-bf16", "auto"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]


class Settings(BaseModel):
    """Settings of one service process. The command line resolves flags > environment > TOML file > these defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: Path
    store: str = Field(repr=False)
    """URL of the state store; may hold a password, so it is never shown."""
    codec: str = DEFAULT_CODEC
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    """0: the system chooses a free one, which the log line ``listening on`` tells."""
    device: Device = "auto"
    runtime: RuntimeChoice = "onnx"
    """What scores: ONNX Runtime, also with TensorRT, torch, torch with co-matching in bfloat16; ``auto``: the fastest
    measured at the start that agrees with the first within 0.005 stars (TensorRT, which takes minutes, is not tried).
    New reviews are encoded by ONNX Runtime in any case."""
    threads: int = Field(default=0, ge=0)
    """Threads that one scoring call computes with; 0: one a physical core."""
    concurrency: int = Field(default=2, ge=1)
    """Threads that read the store and score, each one batch at a time."""
    queue_requests: int = Field(default=64, ge=1)
    """Requests that may wait for a thread; further ones are refused (429)."""
    queue_tokens: int = Field(default=512 * 1024, ge=1)
    """Tokens that waiting requests may read together; further ones are refused, unless nothing else waits."""
    queue_wait_ms: float = Field(default=200.0, ge=0.0)
    """How long a further request may be expected to wait for a thread; else it is refused, unless nothing else waits.
    0: only the number of requests and tokens counts, in overload, too."""
    overload_wait_ms: float = Field(default=1.0, ge=0.0)
    """The same while more is asked for than can be done, from the first refusal on: a burst may wait, but in a queue
    that never empties all would."""
    batch_tokens: int = Field(default=32 * 1024, ge=1)
    """Tokens that predictions of several requests read together in one thread; a request is never parted."""
    batch_wait_ms: float = Field(default=0.0, ge=0.0, le=1000.0)
    """How long a free thread waits for more requests before it takes a batch that is not full."""
    request_timeout: float = Field(default=30.0, gt=0.0, le=3600.0)
    """Seconds that a request may take that does not say so itself (``X-Request-Timeout``)."""
    drain_seconds: float = Field(default=2.0, ge=0.0)
    """On SIGTERM, how long connections stay open for requests that are on their way, if callers do not close them.

    Longer than a load balancer takes to notice that ``/readyz`` says no: the one that ships asks once a second."""
    traces: str | None = Field(default=None, repr=False)
    """OTLP address (HTTP) that traces are sent to; None: nothing is traced. May hold a password, as ``store``."""
    api_keys: Path | None = None
    """TOML file of API keys, read anew within seconds of a change; None: no key is asked for."""
    resident_bytes: int = Field(default=512 * 1024 * 1024, ge=0)
    """Memory for review lists and decoded states that the process keeps, half of it for a shadow bundle if there is
    one; 0: none are kept."""
    resident_lag: float = Field(default=0.5, ge=0, le=60)
    """Seconds that a write through another process may be seen late; 0: none, for one more question to the store a
    request."""
    warm_seconds: float = Field(default=30.0, ge=0)
    """How long the most reviewed may be read into memory before the service is ready; 0: they come as asked for."""
    shadow_bundle: Path | None = None
    """A bundle that rates a sample beside the live one, under the same codec, and can take its place."""
    shadow_share: float = Field(default=0.1, ge=0.0, le=1.0)
    """The part of the rating requests that the shadow bundle rates, too."""
    texts: bool = False
    """Keep the texts of new reviews in the store, as far as the encoder reads them, and show those that are there."""
    max_body_bytes: int = Field(default=8 * 1024 * 1024, ge=1)
    log_level: LogLevel = "info"
    log_format: LogFormat = "text"
    """``json``: one object a line, the fields of a request apart."""

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Settings from resolved values. Raises ``ConfigError`` naming the first that is wrong."""
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = ".".join(map(str, first["loc"]))
            raise ConfigError(f"{name} = {first['input']!r}: {first['msg']}") from error


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
