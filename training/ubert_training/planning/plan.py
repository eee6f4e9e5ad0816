"""What a catalogue of a given size needs: memory, cores, hours and traffic, each number with its formula.

Plain arithmetic over rates measured on one machine: the right orders of magnitude, no promise of latencies.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from ubert_model.errors import ConfigError
from ubert_training.planning.demand import Demand
from ubert_training.planning.rates import Rates
from ubert_training.states.state_estimate import REDIS_BYTES_A_REVIEW, REDIS_BYTES_A_STATE_BYTE, redis_bytes

SECONDS_A_MONTH = 30 * 24 * 3600
RESIDENT_BYTES_A_REVIEW = 1_360
"""Memory of a resident review besides its decoded state: the array object, cache entries, an entry in two lists."""
RESIDENT_BYTES_A_LIST = 700
"""Memory of a resident user or item besides the entries of its list."""
LMDB_BYTES_A_REVIEW = 520
"""Disk space of a review besides its state: a key and two list entries, in pages that are two thirds full."""
LMDB_BYTES_A_STATE_BYTE = 1.5
BYTES_OF_A_TABLE_ROW = 350
"""Memory of a row of the review table in a training process, besides its text."""
BYTES_OF_AN_IDENTIFIER = 190
"""Memory of a known user or item in a service besides its embedding: its name, its entries in dictionaries and in the
sorted directory, and its usual deviation; measured.
"""
HTTP_BYTES_A_PAIR = 600
"""JSON of request and response for one pair, evidence included."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number of a plan. ``formula`` has the inputs filled in, so that it can be checked by hand."""

    name: str
    value: float
    unit: str
    formula: str


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A need as a multiple of what is available. It breaks where ``times`` is above 1; ``setting`` says what helps."""

    step: str
    times: float
    setting: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Figures by name, and limits, the one that breaks first at the head."""

    figures: Mapping[str, Figure]
    limits: Sequence[Limit]


def plan(demand: Demand, rates: Rates) -> Plan:
    """Compute all figures and limits of a demand at given rates. Raises ``ConfigError`` if a number overflows."""
    try:
        computed = (*_storage(demand), *_scoring(demand, rates), *_offline(demand, rates))
        figures = {figure.name: figure for figure in computed}
        return Plan(figures=figures, limits=_limits(demand, rates, figures))
    except OverflowError as error:
        raise ConfigError(f"these numbers overflow ({error}): use more moderate ones") from error


def side_reviews(demand: Demand, entities: int) -> float:
    """Reviews on a side of an average pair: the mean per entity, bounded by ``max_reviews`` and ``max_rows``."""
    return min(demand.max_reviews, demand.max_rows / demand.listed_rows, max(1.0, demand.reviews / entities))


def side_rows(demand: Demand, entities: int) -> int:
    """Rows of states on a side of an average pair."""
    return round(side_reviews(demand, entities) * demand.rows)


def pair_flops(user_tokens: int, item_tokens: int, dim: int) -> int:
    """Operations of Eq. 12–14 for a pair: three products of both sides (Nu·Ni·D), one of each side with W_M (2D·D)."""
    return 3 * 2 * user_tokens * item_tokens * dim + 2 * 2 * dim * dim * (user_tokens + item_tokens)


def _storage(demand: Demand) -> list[Figure]:
    state = demand.state_bytes
    memory = redis_bytes(demand.reviews, demand.reviews * state)
    directory = demand.reviews * (LMDB_BYTES_A_STATE_BYTE * state + LMDB_BYTES_A_REVIEW)
    servers = ceil(demand.redis_copies * memory / (0.75 * demand.redis_bytes))
    known = demand.users + demand.items
    decoded = demand.rows * demand.state_dim * 4 + RESIDENT_BYTES_A_REVIEW
    resident = demand.resident * (demand.reviews * decoded + known * RESIDENT_BYTES_A_LIST)
    embeddings = known * demand.state_dim * 4 if demand.id_embeddings else 0
    identifiers = known * BYTES_OF_AN_IDENTIFIER
    return [
        Figure(
            name="state of a review", value=state, unit="B",
            formula=f"{demand.codec}, {demand.rows} rows, D = {demand.state_dim}, header and checksum",
        ),
        Figure(
            name="Redis memory", value=memory, unit="B",
            formula=f"{demand.reviews:.3g} reviews × ({REDIS_BYTES_A_STATE_BYTE} × {state} B + "
            f"{REDIS_BYTES_A_REVIEW} B), one copy",
        ),
        Figure(
            name="LMDB directory", value=directory, unit="B",
            formula=f"{demand.reviews:.3g} reviews × ({LMDB_BYTES_A_STATE_BYTE} × {state} B + "
            f"{LMDB_BYTES_A_REVIEW} B), in place of Redis on one machine",
        ),
        Figure(
            name="Redis servers", value=servers, unit="",
            formula=f"{demand.redis_copies} copies × {memory:.3g} B ÷ (75% of {demand.redis_bytes:.3g} B)",
        ),
        Figure(
            name="resident states a replica", value=resident, unit="B",
            formula=f"{demand.resident:g} × ({demand.reviews:.3g} reviews × ({demand.rows} rows × "
            f"{demand.state_dim} × 4 B + {RESIDENT_BYTES_A_REVIEW} B) + {known:.3g} users and items × "
            f"{RESIDENT_BYTES_A_LIST} B)",
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
    user, item = side_rows(demand, demand.users), side_rows(demand, demand.items)
    flops = pair_flops(user, item, demand.state_dim)
    pair_ms = 1000 * flops / rates.score_flops_per_core
    missed = 1 - demand.hits
    lists = missed * (1 + demand.candidates)
    of_user, of_item = side_reviews(demand, demand.users), side_reviews(demand, demand.items)
    reviews = of_user + demand.candidates * of_item
    around_ms = rates.request_core_ms + demand.candidates * rates.candidate_core_ms + reviews * rates.review_core_ms
    reading_ms = lists * rates.read_list_core_ms + missed * reviews * rates.read_review_core_ms
    request_ms = around_ms + reading_ms + demand.candidates * pair_ms
    cores = demand.requests_per_s * request_ms / 1000 / demand.utilization
    replicas = max(2, ceil(cores / demand.replica_cores))
    read = missed * reviews * demand.state_bytes
    waiting_ms = 2 * rates.redis_round_trip_ms + 1000 * read / rates.redis_bytes_per_s if missed else 0.0
    service_ms = waiting_ms + around_ms + reading_ms + demand.candidates * pair_ms / demand.replica_cores
    traffic = demand.requests_per_s * read
    answered = demand.requests_per_s * demand.candidates * HTTP_BYTES_A_PAIR
    return [
        Figure(
            name="time of a pair in the network", value=pair_ms, unit="core ms",
            formula=f"(6·{user}·{item}·{demand.state_dim} + 4·{demand.state_dim}²·({user} + {item})) ÷ "
            f"{rates.score_flops_per_core:.3g} a second",
        ),
        Figure(
            name="around the network", value=around_ms, unit="core ms",
            formula=f"{rates.request_core_ms:.3g} ms + {demand.candidates} pairs × {rates.candidate_core_ms:.2g} ms + "
            f"({of_user:.3g} + {demand.candidates} × {of_item:.3g}) reviews × {rates.review_core_ms:.2g} ms",
        ),
        Figure(
            name="reading what is not resident", value=reading_ms, unit="core ms",
            formula=f"{missed:.2g} missed × ({1 + demand.candidates} users and items × {rates.read_list_core_ms:.2g} "
            f"ms + {reviews:.4g} reviews × {rates.read_review_core_ms:.2g} ms)",
        ),
        Figure(
            name="time of a request", value=request_ms, unit="core ms",
            formula=f"{around_ms:.3g} ms around + {reading_ms:.3g} ms of reading + {demand.candidates} pairs × "
            f"{pair_ms:.3g} ms",
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
            formula=f"{missed:.2g} missed × {reviews:.4g} reviews × {demand.state_bytes} B",
        ),
        Figure(
            name="answer of an idle replica", value=service_ms, unit="ms",
            formula=f"{waiting_ms:.3g} ms of waiting (2 × {rates.redis_round_trip_ms:.2g} ms + {read:.3g} B ÷ "
            f"{rates.redis_bytes_per_s:.3g} B/s) + {around_ms:.3g} ms around the network + {reading_ms:.3g} ms of "
            f"reading + {demand.candidates} × {pair_ms:.3g} ms ÷ {demand.replica_cores} cores",
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
    known = demand.users + demand.items if demand.id_embeddings else 0
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
        Figure(
            name="id embeddings in one process", value=known * demand.state_dim * 20, unit="B",
            formula=f"{known:.3g} users and items × {demand.state_dim} × 4 B × 5: weights, gradients, two of AdamW, "
            "the average over the last steps",
        ),
    ]  # fmt: skip


def _limits(demand: Demand, rates: Rates, figures: Mapping[str, Figure]) -> list[Limit]:
    """Every need as a multiple of what is available, the greatest first."""

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
                setting="more replicas, fewer --candidates, --max-rows, --state-dim, a GPU",
            ),
            Limit(
                step="the latency asked for",
                times=need("answer of an idle replica") / demand.latency_ms,
                setting="fewer candidates a request, --max-rows, more cores a replica, more resident bytes",
            ),
            Limit(
                step="a night (8 h) of precompute",
                times=need("precompute") / 8,
                setting="--shard over more machines, --precision bf16, --device cuda",
            ),
            Limit(
                step="one training machine's memory",
                times=(need("review table in one process") + need("id embeddings in one process"))
                / demand.training_bytes,
                setting="--id-embeddings none, one domain at a time (`ubert split --target`), a sample of users",
            ),
        ),
        key=lambda limit: -limit.times,
    )
