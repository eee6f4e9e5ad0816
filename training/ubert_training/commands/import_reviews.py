"""``ubert import``: review files in, one review table out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from ubert_model.running.ray_engine import ray_engine_or_none
from ubert_training.commands import flags
from ubert_training.commands.options import console, import_options
from ubert_training.reviews.file_staging import ImportProgress, stage_locally
from ubert_training.reviews.importer import REJECTS, REVIEWS, import_reviews
from ubert_training.reviews.readers.formats import FormatName
from ubert_training.reviews.report import ImportReport
from ubert_training.reviews.staging_by_ray import stage_by_ray
from ubert_training.reviews.statistics import shared_users_table, statistics_table


def import_command(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE…", help="Review files, plain or gzip.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Folder to write reviews.parquet, rejects.jsonl and report.json to.")],
    format: Annotated[
        FormatName | None, typer.Option("--format", help="Format of all files. Default: detected for each file.")
    ] = None,
    columns: flags.Columns = None,
    domain: Annotated[
        list[str] | None,
        typer.Option(help="Domain of all files, or one for each file in order. Default: taken from the file names."),
    ] = None,
    item_domains: Annotated[
        Path | None,
        typer.Option(help="File of item<TAB>domain lines; items missing from it get the domain of their file."),
    ] = None,
    yelp_business: Annotated[
        Path | None, typer.Option(help="Yelp's business.json: the first category of a business is its domain.")
    ] = None,
    scale: flags.Scale = None,
    with_title: Annotated[
        bool, typer.Option(help="Put the title, which often states the opinion, before a review's text.")
    ] = True,
    core: flags.Core = None,
    max_bad: flags.MaxBad = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a finished import of other files or options.")
    ] = False,
    engine: flags.Engine = "local",
    ray_address: flags.RayAddress = None,
    workers: flags.Workers = 0,
) -> None:
    """Import review files into one table: validated, de-duplicated, k-core filtered, in one fixed order.

    Reads Amazon 2014, 2018 and 2023, Yelp, other JSON lines, CSV, TSV and Parquet. Bad lines are set aside in
    rejects.jsonl. If killed, run the same command again: it continues where it stopped. With Ray, each worker reads
    one file at a time.
    """
    options = import_options(
        format=format,
        columns=columns,
        domains=tuple(domain or ()),
        item_domains=item_domains,
        yelp_business=yelp_business,
        scale=scale,
        with_title=with_title,
        core=core,
        max_bad=max_bad,
    )
    cluster = ray_engine_or_none(engine, address=ray_address, workers=workers)
    stage = stage_locally if cluster is None else partial(stage_by_ray, cluster)
    with _progress_bar() as listener:
        report = import_reviews(files, out, options, listener, force=force, stage=stage)
    _show(report, out)


@contextmanager
def _progress_bar() -> Iterator[Callable[[ImportProgress], None]]:
    terminal = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=terminal,
        transient=True,
        disable=not terminal.is_terminal,  # elsewhere, erasing a transient bar would print an empty line
    )
    with bar:
        task = bar.add_task("reading", total=None)

        def show(progress: ImportProgress) -> None:
            if progress.file is None:
                bar.update(task, description="removing duplicates, filtering, ordering", total=None)
            else:
                bar.update(
                    task,
                    description=progress.file.name,
                    completed=progress.bytes_read,
                    total=progress.bytes_total,
                )

        yield show


def _show(report: ImportReport, out: Path) -> None:
    if report.already_imported:
        console.print(f"Already imported: {out} is unchanged.")
    counts = report.consolidation
    console.print(f"{report.records:,} lines read, {counts.reviews:,} reviews in {out / REVIEWS}")
    removed = {
        f"bad lines (in {out / REJECTS})": report.bad,
        "exact duplicates": counts.exact_duplicates,
        "texts repeated by the same user": counts.repeated_texts,
        f"outside the {report.options['core']}-core ({counts.core_rounds} rounds)": counts.below_core,
    }
    kept = {
        "without text": counts.empty_texts,
        "without time": counts.unknown_timestamps,
        f"of {counts.domain_missing_items:,} items without a listed domain": counts.domain_missing_reviews,
    }
    for what, count in removed.items():
        if count:
            console.print(f"  {count:,} removed: {what}")
    for what, count in kept.items():
        if count:
            console.print(f"  {count:,} kept {what}")
    for file in report.files:
        if "timestamp" in file.absent_columns and (unused := file.unused_columns):
            console.print(
                f"{file.file} has no column timestamp; unread columns: {', '.join(unused)}. If one is the time, import "
                f"again with --force and --columns, as in --columns timestamp={unused[0]}"
            )
    for side, example in (("user", counts.float_user), ("item", counts.float_item)):
        if example is not None:
            column = report.options["columns"].get(side, side)
            console.print(
                f"Ids of the column {column} are written as floats, such as {example}, as pandas does if a value is "
                f"missing. They are kept so: the service will not know {example.removesuffix('.0')}. Write the column "
                "as integers or text, and import again with --force"
            )
    console.print(statistics_table(report.statistics))
    if len(report.statistics.domains) > 1:
        console.print(shared_users_table(report.statistics))
    if sum(line.items for line in report.statistics.domains) > report.statistics.items:
        console.print("Some items are in several domains: if the files are parts of one, give them one with --domain")
