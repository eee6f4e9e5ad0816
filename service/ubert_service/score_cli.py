"""``ubert-serve-score``: rate a file of pairs, as the service would."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ubert_model.errors import ConfigError, UbertError
from ubert_model.ray_engine import EngineName, chosen_engine
from ubert_model.sharding import Shard
from ubert_model.states import absolute_url
from ubert_service.settings import Device, RuntimeChoice, Settings

_USAGE_ERROR = 2
_DEFAULTS = Settings.model_construct()

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help="Rate the pairs of a file, as /predict would; killed and started again it rates the rest.")
def run(
    bundle: Annotated[Path, typer.Option(envvar="UBERT_BUNDLE", help="Directory that `ubert export` wrote.")],
    store: Annotated[str, typer.Option(envvar="UBERT_STORE", help="redis://HOST:PORT/DB or lmdb:DIRECTORY.")],
    pairs: Annotated[Path, typer.Option(help="CSV, TSV (also .gz) or Parquet with the columns user and item.")],
    out: Annotated[Path, typer.Option(help="Parquet file to write, in the order of the pairs.")],
    codec: Annotated[
        str, typer.Option(envvar="UBERT_CODEC", help="Codec that the states were precomputed with.")
    ] = _DEFAULTS.codec,
    shard: Annotated[str, typer.Option(help="Only this share of the users, as 3/8: others do the rest.")] = "1/1",
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    device: Annotated[
        Device, typer.Option(envvar="UBERT_DEVICE", help="cuda: fail where no GPU works; auto: then take the CPU.")
    ] = _DEFAULTS.device,
    runtime: Annotated[
        RuntimeChoice, typer.Option(envvar="UBERT_RUNTIME", help="What scores; auto: the fastest, by a measurement.")
    ] = _DEFAULTS.runtime,
    threads: Annotated[int, typer.Option(min=0, help="Threads that score; 0: one a core.")] = _DEFAULTS.threads,
    resident_bytes: Annotated[
        int, typer.Option(min=0, help="Memory of a process for reviews that it has read; 0: none.")
    ] = _DEFAULTS.resident_bytes,
    engine: Annotated[EngineName, typer.Option(help="local: this process; ray: the workers of a Ray cluster.")] = (
        "local"
    ),
    ray_address: Annotated[
        str | None, typer.Option(help="HOST:PORT of the Ray cluster; unset: one of this machine, for this alone.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Ray workers; 0: as many as there are processors for.")] = 0,
    worker_cpus: Annotated[int, typer.Option(min=1, help="Processors, and threads, of one Ray worker.")] = 1,
) -> None:
    try:
        from ubert_service.bulk.rating import rate_pairs  # noqa: PLC0415  # a service has no pyarrow
    except ImportError as error:
        raise ConfigError(f"pairs = {str(pairs)!r}: {error}; pip install '.[score]'") from error
    cluster = chosen_engine(
        engine, address=ray_address, workers=workers, cpus=worker_cpus, gpus=1 if device == "cuda" else 0
    )
    settings = Settings.of(
        bundle=bundle.absolute(),
        store=absolute_url(store),
        codec=codec,
        device=device,
        runtime=runtime,
        threads=threads if cluster is None else worker_cpus,
        resident_bytes=resident_bytes,
    )
    with _progress_shown() as progress:
        rated = rate_pairs(
            pairs, out, settings, shard=Shard.parse(shard), engine=cluster, force=force, progress=progress
        )
    print(f"{rated} pairs rated in {out}")


@contextmanager
def _progress_shown() -> Iterator[Callable[[int, int], None]]:
    columns = (TextColumn("rating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("rating", total=None)
        yield lambda rated, of: bars.update(task, completed=rated, total=of)


def main() -> None:
    """Entry point. An error that has a name is one line on stderr and exit status 2."""
    try:
        app()
    except UbertError as error:
        print(f"ubert-serve-score: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(_USAGE_ERROR)


if __name__ == "__main__":
    main()
