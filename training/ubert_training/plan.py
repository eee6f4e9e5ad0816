"""What a catalogue of some size needs: memory, cores, hours and traffic, every number with the formula it came by.

Plain arithmetic over rates that were measured on one machine; it orders magnitudes and does not promise latencies.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import ceil
from pathlib import Path
from typing import Self

from ubert_model.config import require
from ubert_model.errors import ConfigError
from ubert_model.states.codec import DEFAULT_CODEC, stored_bytes
from ubert_training.states.state_estimate import REDIS_BYTES_A_REVIEW, REDIS_BYTES_A_STATE_BYTE, redis_bytes

SECONDS_A_MONTH = 30 * 24 * 3600
BYTES_OF_A_LINE = 300
"""One line of a review list, decoded, in the service's process."""
BYTES_OF_A_TABLE_ROW = 350
"""One row of the review table in a training process, beside its text."""
BYTES_OF_AN_IDENTIFIER = 130
"""One known user or item in a process: its name and its place in a dictionary, measured."""
HTTP_BYTES_A_PAIR = 600
"""Question and answer about one pair, JSON, evidence included."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What one core, or one server, does. Defaults: measured on one of 2 cores with AVX-512 (AMD EPYC), 2026-11-23.

    ``encode_tokens_per_core``: tokens a second (MiniLM, fp32, ONNX Runtime). ``score_flops_per_core``: of co-matching,
    softmax and pooling included. ``request_core_ms``: what a request costs before it is scored.
    ``redis_bytes_per_s``: large values from one server.
    """

    encode_tokens_per_core: float = 6_000.0
    score_flops_per_core: float = 70e9
    request_core_ms: float = 2.0
    redis_bytes_per_s: float = 300e6
    redis_round_trip_ms: float = 0.5

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            require(value > 0, name, value, "use a rate above 0")

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


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What is to be served, and with which settings.

    ``tokens`` is a review's mean length after truncation; ``max_reviews`` and ``max_tokens`` bound a side of a pair;
    ``candidates`` are pairs a request; ``resident`` is the share of all reviews that a replica keeps decoded, ``hits``
    the share of reviews read that are found there. ``utilization`` is how busy cores may be on average.
    """

    users: int
    items: int
    reviews: int
    tokens: int = 64
    requests_per_s: float = 100.0
    candidates: int = 100
    latency_ms: float = 100.0
    codec: str = DEFAULT_CODEC
    state_dim: int = 64
    max_reviews: int = 10
    max_tokens: int = 256
    resident: float = 0.01
    hits: float = 0.8
    id_embeddings: bool = True
    replica_cores: int = 4
    replica_bytes: float = 16e9
    redis_bytes: float = 64e9
    redis_copies: int = 2
    encoding_cores: int = 64
    training_bytes: float = 256e9
    utilization: float = 0.6

    def __post_init__(self) -> None:
        shares = ("resident", "hits", "utilization")
        for name in shares:
            value = getattr(self, name)
            require(0 <= value <= 1 and (name != "utilization" or value > 0), name, value, "use a share from 0 to 1")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in shares and not isinstance(value, (str, bool)):
                require(value > 0, field.name, value, "use a number above 0")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number of a plan. ``formula`` has the inputs filled in, so that it can be checked with a pencil."""

    name: str
    value: float
    unit: str
    formula: str


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A need set against what one place has. Above 1 ``times`` says that it breaks, ``setting`` what moves it."""

    step: str
    times: float
    setting: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Figures by name, and the limits, what breaks first at the head."""

    figures: Mapping[str, Figure]
    limits: Sequence[Limit]


def plan(demand: Demand, rates: Rates) -> Plan:
    """Everything that follows from a demand at some rates."""
    found = (*_storage(demand), *_scoring(demand, rates), *_offline(demand, rates))
    figures = {figure.name: figure for figure in found}
    return Plan(figures=figures, limits=_limits(demand, rates, figures))


def side_tokens(demand: Demand, entities: int) -> int:
    """Rows of a side of an average pair: tokens of an entity's reviews, as far as the budgets go."""
    reviews = min(demand.max_reviews, max(1.0, demand.reviews / entities))
    return min(demand.max_tokens, round(demand.tokens * reviews))


def pair_flops(user_tokens: int, item_tokens: int, dim: int) -> int:
    """Eq. 12–14 of one pair: three products of the two sides (Nu·Ni·D), and one of each side with W_M (2D·D)."""
    return 3 * 2 * user_tokens * item_tokens * dim + 2 * 2 * dim * dim * (user_tokens + item_tokens)


def _storage(demand: Demand) -> list[Figure]:
    state = stored_bytes(demand.codec, demand.tokens, demand.state_dim)
    memory = redis_bytes(demand.reviews, demand.reviews * state)
    servers = ceil(demand.redis_copies * memory / (0.75 * demand.redis_bytes))
    decoded = demand.tokens * demand.state_dim * 4 + BYTES_OF_A_LINE
    resident = demand.resident * demand.reviews * decoded
    known = demand.users + demand.items
    embeddings = known * demand.state_dim * 4 if demand.id_embeddings else 0
    identifiers = known * BYTES_OF_AN_IDENTIFIER
    return [
        Figure(
            name="state of a review", value=state, unit="B",
            formula=f"{demand.codec}, {demand.tokens} tokens, D = {demand.state_dim}, header and checksum",
        ),
        Figure(
            name="Redis memory", value=memory, unit="B",
            formula=f"{demand.reviews:.3g} reviews × ({REDIS_BYTES_A_STATE_BYTE} × {state} B + "
            f"{REDIS_BYTES_A_REVIEW} B), one copy",
        ),
        Figure(
            name="Redis servers", value=servers, unit="",
            formula=f"{demand.redis_copies} copies × {memory:.3g} B ÷ (75% of {demand.redis_bytes:.3g} B)",
        ),
        Figure(
            name="resident states a replica", value=resident, unit="B",
            formula=f"{demand.resident:g} × {demand.reviews:.3g} reviews × ({demand.tokens} tokens × "
            f"{demand.state_dim} × 4 B + {BYTES_OF_A_LINE} B)",
        ),
        Figure(
            name="embeddings and identifiers a replica", value=embeddings + identifiers, unit="B",
            formula=f"{known:.3g} users and items × ({demand.state_dim if demand.id_embeddings else 0} × 4 B + "
            f"{BYTES_OF_AN_IDENTIFIER} B)",
        ),
        Figure(
            name="memory a replica", value=resident + embeddings + identifiers + 1e9, unit="B",
            formula="resident states + embeddings and identifiers + 1 GB of process",
        ),
    ]  # fmt: skip


def _scoring(demand: Demand, rates: Rates) -> list[Figure]:
    user, item = side_tokens(demand, demand.users), side_tokens(demand, demand.items)
    flops = pair_flops(user, item, demand.state_dim)
    pair_ms = 1000 * flops / rates.score_flops_per_core
    request_ms = rates.request_core_ms + demand.candidates * pair_ms
    cores = demand.requests_per_s * request_ms / 1000 / demand.utilization
    replicas = max(2, ceil(cores / demand.replica_cores))
    state = stored_bytes(demand.codec, demand.tokens, demand.state_dim)
    sides = user + demand.candidates * item
    read = (1 - demand.hits) * sides / demand.tokens * state
    read_ms = 2 * rates.redis_round_trip_ms + 1000 * read / rates.redis_bytes_per_s
    service_ms = read_ms + rates.request_core_ms + demand.candidates * pair_ms / demand.replica_cores
    traffic = demand.requests_per_s * read
    answered = demand.requests_per_s * demand.candidates * HTTP_BYTES_A_PAIR
    return [
        Figure(
            name="time of a pair", value=pair_ms, unit="core ms",
            formula=f"(6·{user}·{item}·{demand.state_dim} + 4·{demand.state_dim}²·({user} + {item})) ÷ "
            f"{rates.score_flops_per_core:.3g} a second",
        ),
        Figure(
            name="time of a request", value=request_ms, unit="core ms",
            formula=f"{rates.request_core_ms:g} ms + {demand.candidates} pairs × {pair_ms:.3g} ms",
        ),
        Figure(
            name="cores", value=cores, unit="",
            formula=f"{demand.requests_per_s:g} a second × {request_ms:.3g} ms ÷ {demand.utilization:g} busy",
        ),
        Figure(
            name="replicas", value=replicas, unit="",
            formula=f"{cores:.3g} cores ÷ {demand.replica_cores} a replica, at least 2",
        ),
        Figure(
            name="read from Redis a request", value=read, unit="B",
            formula=f"{1 - demand.hits:.2g} missed × {sides} tokens ÷ {demand.tokens} a review × {state} B",
        ),
        Figure(
            name="answer of an idle replica", value=service_ms, unit="ms",
            formula=f"2 × {rates.redis_round_trip_ms:g} ms + {read:.3g} B ÷ {rates.redis_bytes_per_s:.3g} B/s + "
            f"{rates.request_core_ms:g} ms + {demand.candidates} × {pair_ms:.3g} ms ÷ {demand.replica_cores} cores",
        ),
        Figure(
            name="Redis throughput", value=traffic, unit="B/s",
            formula=f"{demand.requests_per_s:g} a second × {read:.3g} B",
        ),
        Figure(
            name="monthly traffic inside", value=traffic * SECONDS_A_MONTH, unit="B",
            formula=f"{traffic:.3g} B/s × 30 days",
        ),
        Figure(
            name="monthly traffic outside", value=answered * SECONDS_A_MONTH, unit="B",
            formula=f"{demand.requests_per_s:g} × {demand.candidates} pairs × {HTTP_BYTES_A_PAIR} B × 30 days",
        ),
    ]  # fmt: skip


def _offline(demand: Demand, rates: Rates) -> list[Figure]:
    hours = demand.reviews * demand.tokens / (rates.encode_tokens_per_core * demand.encoding_cores) / 3600
    table = demand.reviews * (BYTES_OF_A_TABLE_ROW + 5 * demand.tokens)
    return [
        Figure(
            name="precompute", value=hours, unit="h",
            formula=f"{demand.reviews:.3g} × {demand.tokens} tokens ÷ ({rates.encode_tokens_per_core:g} a second × "
            f"{demand.encoding_cores} cores)",
        ),
        Figure(
            name="review table in one process", value=table, unit="B",
            formula=f"{demand.reviews:.3g} reviews × ({BYTES_OF_A_TABLE_ROW} B + {demand.tokens} tokens × 5 B)",
        ),
    ]  # fmt: skip


def _limits(demand: Demand, rates: Rates, figures: Mapping[str, Figure]) -> list[Limit]:
    """Every need over what one place has, the greatest first."""

    def need(name: str) -> float:
        return figures[name].value

    return sorted(
        (
            Limit(
                step="one Redis server's memory",
                times=need("Redis memory") / (0.75 * demand.redis_bytes),
                setting="--store redis+cluster://…, a smaller --codec, fewer tokens a review (--max-length)",
            ),
            Limit(
                step="one Redis server's throughput",
                times=need("Redis throughput") / rates.redis_bytes_per_s,
                setting="more resident bytes, hashing of users to replicas, a smaller --codec, more servers",
            ),
            Limit(
                step="one replica's memory",
                times=need("memory a replica") / demand.replica_bytes,
                setting="--id-embeddings none, fewer resident bytes, hashing of users to replicas",
            ),
            Limit(
                step="one replica's cores",
                times=need("cores") / demand.replica_cores,
                setting="more replicas, fewer --candidates, --max-tokens, --state-dim, a GPU",
            ),
            Limit(
                step="the latency asked for",
                times=need("answer of an idle replica") / demand.latency_ms,
                setting="fewer candidates a request, --max-tokens, more cores a replica, more resident bytes",
            ),
            Limit(
                step="a night (8 h) of precompute",
                times=need("precompute") / 8,
                setting="--shard over more machines, --precision bf16, --device cuda",
            ),
            Limit(
                step="one training machine's memory",
                times=need("review table in one process") / demand.training_bytes,
                setting="a machine with more memory, one domain at a time (`ubert split --target`), a sample of users",
            ),
        ),
        key=lambda limit: -limit.times,
    )
