"""`ubert plan`."""

from dataclasses import asdict
from json import dumps
from math import ceil
from pathlib import Path
from typing import Annotated

import typer

from ubert_model.states import codec_names
from ubert_training.commands.options import console
from ubert_training.planning.demand import Demand, require_numbers
from ubert_training.planning.plan import Figure, Limit, Plan, plan
from ubert_training.planning.rates import Rates

_DEFAULT = Demand(users=1, items=1, reviews=1)


def plan_command(
    context: typer.Context,
    users: Annotated[float, typer.Option(help="Users with a review; 1e8 is fine.")],
    items: Annotated[float, typer.Option(help="Items with a review.")],
    reviews: Annotated[float, typer.Option(help="Reviews.")],
    tokens: Annotated[int, typer.Option(help="Mean tokens per review, after truncation.")] = _DEFAULT.tokens,
    tokens_a_row: Annotated[int, typer.Option(help="Tokens that share a row of states.")] = _DEFAULT.tokens_a_row,
    rps: Annotated[float, typer.Option(help="Requests per second.")] = _DEFAULT.requests_per_s,
    candidates: Annotated[int, typer.Option(help="Pairs per request.")] = _DEFAULT.candidates,
    latency_ms: Annotated[float, typer.Option(help="Target latency of a request.")] = _DEFAULT.latency_ms,
    codec: Annotated[str, typer.Option(help=f"State codec: {', '.join(codec_names())}.")] = _DEFAULT.codec,
    state_dim: Annotated[int, typer.Option(help="Dimension D of the states.")] = _DEFAULT.state_dim,
    max_reviews: Annotated[int, typer.Option(help="Maximum reviews per side of a pair.")] = _DEFAULT.max_reviews,
    max_rows: Annotated[int, typer.Option(help="Maximum rows of states per side of a pair.")] = _DEFAULT.max_rows,
    resident: Annotated[float, typer.Option(help="Share of all reviews resident in a replica.")] = _DEFAULT.resident,
    hits: Annotated[float, typer.Option(help="Share of the reviews read that are resident.")] = _DEFAULT.hits,
    id_embeddings: Annotated[
        bool, typer.Option("--id-embeddings/--no-id-embeddings", help="Whether the model has id embeddings.")
    ] = _DEFAULT.id_embeddings,
    replica_cores: Annotated[int, typer.Option(help="Cores of a replica.")] = _DEFAULT.replica_cores,
    replica_gb: Annotated[float, typer.Option(help="Memory of a replica.")] = _DEFAULT.replica_bytes / 1e9,
    redis_gb: Annotated[float, typer.Option(help="Memory of a Redis server.")] = _DEFAULT.redis_bytes / 1e9,
    redis_copies: Annotated[int, typer.Option(help="Primary and replicas of every key.")] = _DEFAULT.redis_copies,
    encoding_cores: Annotated[int, typer.Option(help="Cores for precompute, over all shards.")] = (
        _DEFAULT.encoding_cores
    ),
    training_gb: Annotated[float, typer.Option(help="Memory of the training machine.")] = (
        _DEFAULT.training_bytes / 1e9
    ),
    utilization: Annotated[float, typer.Option(help="Highest mean load of the cores, 0 to 1.")] = _DEFAULT.utilization,
    rates: Annotated[Path | None, typer.Option(help="JSON file of `ubert bench rates`.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Plan memory, cores, hours and traffic, with every formula, and what breaks first."""
    require_numbers(context.params, display_name=lambda name: f"--{name.replace('_', '-')}")
    demand = Demand(
        users=ceil(users),
        items=ceil(items),
        reviews=ceil(reviews),
        tokens=tokens,
        tokens_a_row=tokens_a_row,
        requests_per_s=rps,
        candidates=candidates,
        latency_ms=latency_ms,
        codec=codec,
        state_dim=state_dim,
        max_reviews=max_reviews,
        max_rows=max_rows,
        resident=resident,
        hits=hits,
        id_embeddings=id_embeddings,
        replica_cores=replica_cores,
        replica_bytes=replica_gb * 1e9,
        redis_bytes=redis_gb * 1e9,
        redis_copies=redis_copies,
        encoding_cores=encoding_cores,
        training_bytes=training_gb * 1e9,
        utilization=utilization,
    )
    measured = Rates.load(rates) if rates else Rates()
    planned = plan(demand, measured)
    if json:
        figures = {name: asdict(figure) for name, figure in planned.figures.items()}
        shown = {"demand": asdict(demand), "rates": asdict(measured), "figures": figures}
        typer.echo(dumps({**shown, "limits": [asdict(limit) for limit in planned.limits]}, indent=2))
        return
    _show(planned)


def _show(planned: Plan) -> None:
    for figure in planned.figures.values():
        console.print(f"{figure.name:<37} {format_value(figure):>12}   {figure.formula}")
    console.print("\nWhat breaks first", style="bold")
    for limit in planned.limits:
        console.print(format_limit(limit))


def format_limit(limit: Limit) -> str:
    """One line on a limit."""
    over = f"{limit.times:,.1f} times over; moved by {limit.setting}"
    return f"  {limit.step:<33} {over if limit.times > 1 else f'holds, {limit.times:.0%} used'}"


def format_value(figure: Figure) -> str:
    """The value with three significant digits and its unit, bytes with a decimal prefix: ``1.23 TB``."""
    value, prefixes = figure.value, ["", "k", "M", "G", "T", "P"]
    if figure.unit in ("B", "B/s"):
        while value >= 1000 and len(prefixes) > 1:
            value, prefixes = value / 1000, prefixes[1:]
        return f"{value:,.3g} {prefixes[0]}{figure.unit}"
    number = f"{value:,.0f}" if value >= 100 or not figure.unit else f"{value:.3g}"
    return f"{number} {figure.unit}".strip()
