"""``ubert-serve-score``: rates a file of pairs as the service would."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ubert_model.running.ray_engine import EngineName, ray_engine_or_none
from ubert_model.running.sharding import Shard
from ubert_model.states import absolute_url
from ubert_service.bulk.rating import rate_pairs
from ubert_service.commands.command_line import new_app, run_command
from ubert_service.commands.flags import BundleFlag, CodecFlag, DeviceFlag, StoreFlag
from ubert_service.settings import RuntimeChoice, Settings

_DEFAULTS = Settings.model_construct()

app = new_app()


@app.command(help="Rate the pairs of a file as /predict would. A killed run resumes with the same command.")
def run(
    bundle: BundleFlag,
    store: StoreFlag,
    pairs: Annotated[Path, typer.Option(help="CSV, TSV (also .gz) or Parquet with the columns user and item.")],
    out: Annotated[Path, typer.Option(help="Parquet file to write (NAME.parquet), in the order of the pairs.")],
    codec: CodecFlag = _DEFAULTS.codec,
    shard: Annotated[str, typer.Option(help="Rate only this shard of the users, such as 3/8.")] = "1/1",
    force: Annotated[
        bool, typer.Option("--force", help="Replace the file, or another run's partial results for it.")
    ] = False,
    device: DeviceFlag = _DEFAULTS.device,
    runtime: Annotated[
        RuntimeChoice, typer.Option(envvar="UBERT_RUNTIME", help="What scores; not auto, so that all workers agree.")
    ] = _DEFAULTS.runtime,
    threads: Annotated[int, typer.Option(min=0, help="Threads that score; 0: one per core.")] = _DEFAULTS.threads,
    resident_bytes: Annotated[
        int, typer.Option(min=0, help="Memory of a process to cache reviews; 0: none.")
    ] = _DEFAULTS.resident_bytes,
    engine: Annotated[EngineName, typer.Option(help="local: this process; ray: the workers of a Ray cluster.")] = (
        "local"
    ),
    ray_address: Annotated[
        str | None, typer.Option(help="HOST:PORT of the Ray cluster; unset: a local one for this run.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Ray workers; 0: as many as the processors allow.")] = 0,
    worker_cpus: Annotated[int, typer.Option(min=1, help="Processors (and threads) per Ray worker.")] = 1,
) -> None:
    cluster = ray_engine_or_none(
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
    shown = Console(stderr=True)
    # Disabled off a terminal: erasing a bar that was never drawn would leave an empty line.
    with Progress(*columns, console=shown, transient=True, disable=not shown.is_terminal) as bars:
        task = bars.add_task("rating", total=None)
        yield lambda rated, of: bars.update(task, completed=rated, total=of)


def main() -> None:
    """Entry point."""
    run_command(app, "ubert-serve-score")


if __name__ == "__main__":
    main()
