"""What one core, or one server, does in a second."""

import json
from dataclasses import asdict, dataclass, fields
from math import isfinite
from pathlib import Path
from typing import Self

from ubert_model.config import require
from ubert_model.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What one core, or one server, does. Defaults: measured on one of 2 cores with AVX-512 (AMD EPYC), 2026-11-23.

    ``encode_tokens_per_core``: tokens a second (MiniLM, fp32, ONNX Runtime). ``score_flops_per_core``: of co-matching,
    softmax and pooling included. ``request_core_ms``: what a request costs before it is scored,
    ``candidate_core_ms``: each of its pairs, ``review_core_ms``: lining up each review of their sides, from a memory
    that no cache holds. ``read_list_core_ms`` and ``read_review_core_ms``: reading a user or an item that is not
    resident, and each of its reviews. ``redis_bytes_per_s``: large values from one server.

    ``python tests/benchmarks/simulation.py`` measures all but the first and the last, and sets the plan against them.
    """

    encode_tokens_per_core: float = 6_000.0
    score_flops_per_core: float = 70e9
    request_core_ms: float = 2.0
    candidate_core_ms: float = 0.01
    review_core_ms: float = 0.005
    read_list_core_ms: float = 0.035
    read_review_core_ms: float = 0.015
    redis_bytes_per_s: float = 300e6
    redis_round_trip_ms: float = 0.5

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            require(isfinite(value) and value > 0, name, value, "use a rate above 0")

    @classmethod
    def load(cls, path: Path) -> Self:
        """From a JSON object with some of the rates. Raises ``ConfigError`` for anything else in it."""
        try:
            given = json.loads(path.read_text(encoding="utf-8"))
            unknown = sorted(set(given) - {field.name for field in fields(cls)})
            require(not unknown, "rates", unknown, f"use {', '.join(field.name for field in fields(cls))}")
            return cls(**{name: float(value) for name, value in given.items()})
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ConfigError(f"rates file {path}: {error}") from error
