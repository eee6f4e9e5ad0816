"""Rates and costs of one core, and of one Redis server."""

import json
from dataclasses import asdict, dataclass, fields
from math import inf
from pathlib import Path
from typing import Self

from ubert_model.errors import ConfigError
from ubert_model.validation import require, require_declared_types


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Rates and costs. The defaults were measured on one of 2 cores with AVX-512 (AMD EPYC), 2026-11-23.

    ``encode_tokens_per_core``: tokens per second (MiniLM, fp32, ONNX Runtime). ``score_flops_per_core``: co-matching,
    softmax and pooling included. Core time before scoring: ``request_core_ms`` per request, ``candidate_core_ms`` per
    pair, ``review_core_ms`` per review, to gather it from memory outside any CPU cache. ``read_list_core_ms`` and
    ``read_review_core_ms``: reading a user or an item that is not resident, and each of its reviews.
    ``redis_bytes_per_s``: large values from one server; ``redis_round_trip_ms``: an answer of it without any.

    ``python tests/benchmarks/simulation.py`` measures all but ``encode_tokens_per_core`` and ``redis_bytes_per_s``,
    and compares the plan with them.
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
        require_declared_types(self)
        for name, value in asdict(self).items():
            require(0 < value < inf, name, value, "use a rate above 0")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a JSON object with some of the rates. Raises ``ConfigError`` if it holds anything else."""
        try:
            given = json.loads(path.read_text(encoding="utf-8"))
            known = [field.name for field in fields(cls)]
            fits = isinstance(given, dict) and given.keys() <= set(known)
            require(fits, "rates", given, f"write an object with some of {', '.join(known)}")
            return cls(**given)
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"rates file {path}: {error}") from error
