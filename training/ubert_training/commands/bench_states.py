"""`ubert bench states`."""

from pathlib import Path
from typing import Annotated, cast

import typer

from ubert_model.states import codec_names
from ubert_model.validation import require
from ubert_training.commands import flags
from ubert_training.commands.options import console, load_reviews
from ubert_training.running.progress import progress_bar
from ubert_training.running.stage import read_stage


def bench_states_command(
    reviews: flags.Reviews,
    run: Annotated[list[Path], typer.Option(help="Run of `ubert finetune`; repeat to compare or to pool runs.")],
    states: Annotated[
        list[Path] | None, typer.Option(help="Cached states of each run, in order. Unset: states/ beside the run.")
    ] = None,
    pairs: Annotated[
        str, typer.Option(help="Part of each run's split to rate, up to 4,000 pairs: test or validation.")
    ] = "test",
    out: Annotated[Path | None, typer.Option(help="Directory of the report. Unset: the first run.")] = None,
    device: flags.Device = "auto",
) -> None:
    """Bytes, change of MSE and speed of every codec. Runs with the same state dimension are pooled, others compared."""
    require(pairs in ("test", "validation"), "pairs", pairs, "use test or validation")
    shown = ", ".join(map(str, states or ()))
    require(states is None or len(states) == len(run), "--states", shown, f"give one for each of {len(run)} runs")
    table = load_reviews(reviews)
    for directory in run:
        read_stage(directory)
    from ubert_training.evaluation.state_tiers import measure_tiers
    from ubert_training.evaluation.tier_report import tier_table, verdict, write_report
    from ubert_training.finetuning.finished_run import FinishedRun
    from ubert_training.running.devices import DeviceChoice

    state_dirs = states or [directory.with_name("states") for directory in run]
    opened = [
        FinishedRun.open(table, directory, states=state_dir, device=cast(DeviceChoice, device))
        for directory, state_dir in zip(run, state_dirs, strict=True)
    ]
    with progress_bar("codecs", len(codec_names()) * len(opened)) as advance:
        report = measure_tiers(opened, pairs, advance)
    written = write_report(report, out or run[0])
    console.print(tier_table(report))
    for line in verdict(report):
        console.print(line)
    console.print(", ".join(map(str, written)))
