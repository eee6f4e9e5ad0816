"""`ubert reproduce`."""

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ubert_model.validation import require
from ubert_training.accuracy.reproduction import EXPERIMENTS, METHODS, RUNS, Experiment, commands
from ubert_training.commands.options import console


def reproduce_command(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="SET", help=f"{', '.join(EXPERIMENTS)}.")],
    reviews: Annotated[
        list[Path] | None, typer.Option(help="Folder of the review files, or each file in the order printed.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Directory of all results. Unset: reproduce-SET.")] = None,
    preset: Annotated[str | None, typer.Option(help="A preset other than paper, to try the commands.")] = None,
    run: Annotated[bool, typer.Option("--run", help="Run them. If killed, the same command continues.")] = False,
) -> None:
    """Print the commands that repeat an experiment of the paper, its numbers beside ours; or run them."""
    require(name in EXPERIMENTS, "set", name, f"use one of {', '.join(EXPERIMENTS)}")
    require(bool(reviews) or not run, "reviews", reviews, "give the folder of the review files to run on")
    experiment, directory = EXPERIMENTS[name], out or Path(f"reproduce-{name}")
    steps = commands(experiment, reviews or [], directory, preset)
    console.print(f"Files: {', '.join(experiment.needed)}")
    for note in experiment.notes:
        console.print(f"Note: {note}")
    for step in steps:
        console.print(shlex.join(["ubert", *step]))
        if run:
            run_step(context, step)
    console.print(comparison(name, experiment, directory))


def run_step(context: typer.Context, step: list[str]) -> None:
    """Run a command of ``ubert``. Whatever it raises ends this command as well, an interrupt included."""
    program = context.find_root().command
    with program.make_context("ubert", list(step), parent=context) as step_context:
        program.invoke(step_context)


def comparison(name: str, experiment: Experiment, directory: Path) -> Table:
    """The paper's row of Table 2 beside our measurements of the same methods; empty where there is none yet."""
    table = Table(title=f"Test MSE, {name}")
    for column in ("method", "paper", "here"):
        table.add_column(column, justify="left" if column == "method" else "right")
    measured = measured_here(directory)
    for number, method in enumerate(METHODS):
        paper = f"{experiment.paper[number]:.4f}" if experiment.paper else ""
        table.add_row(method, paper, f"{measured[method]:.4f}" if method in measured else "")
    for method in sorted(set(measured) - set(METHODS)):
        table.add_row(method, "", f"{measured[method]:.4f}")
    return table


def measured_here(directory: Path) -> dict[str, float]:
    """MSE by method, from the finished evaluations; that of a baseline is taken from the first one."""
    if not directory.is_dir():
        return {}
    from ubert_training.evaluation.evaluate import EVALUATION, MODEL_NAME

    found: dict[str, float] = {}
    for method, run in RUNS.items():
        path = directory / run / EVALUATION
        if path.is_file():
            scores = json.loads(path.read_text(encoding="utf-8"))["scores"]
            for name, scored in scores.items():
                found.setdefault(method if name == MODEL_NAME else name, float(scored["mse"]["value"]))
    return found
