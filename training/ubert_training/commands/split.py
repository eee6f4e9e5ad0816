"""`ubert split`."""

from pathlib import Path
from typing import Annotated

import typer

from ubert_model.errors import ConfigError, InputError
from ubert_model.validation import require
from ubert_training.commands import flags
from ubert_training.commands.options import FOLDS, console, load_reviews, require_file, require_unset, table_file
from ubert_training.pretraining.corpus_rows import target_rows
from ubert_training.reviews.table import ReviewTable
from ubert_training.running.disk import require_outside
from ubert_training.splits import Split, k_fold_splits, random_split, time_split


def split_command(
    reviews: flags.Reviews,
    out: Annotated[Path, typer.Option(help="File to write; folds are numbered: split.parquet → split-0.parquet …")],
    kind: Annotated[str, typer.Option(help="random (80/10/10), folds, or time (train on the past).")] = "random",
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the random draws; a split by time has none. Unset: 0.")
    ] = None,
    folds: Annotated[int | None, typer.Option(help=f"Number of folds, with --kind folds. Unset: {FOLDS}.")] = None,
    target: Annotated[list[str] | None, typer.Option(help="Target domain; repeat for several. Unset: all.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace another split, or another file, at --out.")] = False,
) -> None:
    """Divide the reviews of the target domain into train, validation and test, once, for every later step."""
    require_file("out", out)
    require(kind in ("random", "folds", "time"), "kind", kind, "use random, folds or time")
    if kind != "folds":
        require_unset("give it with --kind folds", folds=folds)
    if kind == "time":
        require_unset("a split by time draws nothing: give it with another --kind", seed=seed)
    table, draw_seed = load_reviews(reviews), seed or 0
    rows = target_rows(table, target or ())
    if kind == "folds":
        splits = enumerate(k_fold_splits(table, rows, FOLDS if folds is None else folds, draw_seed))
        split_at = {out.with_name(f"{out.stem}-{fold}{out.suffix}"): split for fold, split in splits}
    else:
        split_at = {out: random_split(table, rows, draw_seed) if kind == "random" else time_split(table, rows)}
    for path in split_at:
        require_outside(path, [table_file(reviews)])
    if not force:
        for path, split in split_at.items():
            _require_free(path, split, table)
    for path, split in split_at.items():
        split.save(path, table)
        console.print(f"{path}: {_sizes(split)}")


def _require_free(path: Path, split: Split, table: ReviewTable) -> None:
    """Raise ``ConfigError`` if another split or file is at ``path``: models may have been trained with it."""
    if not path.exists():
        return
    try:
        same = _identity(Split.load(path, table), table) == _identity(split, table)
    except InputError:
        same = False
    if not same:
        raise ConfigError(f"{path} holds another split, or another file; give a new --out, or --force to replace it")


def _identity(split: Split, table: ReviewTable) -> tuple[object, ...]:
    return split.digests(table), split.kind, split.seed, split.fold, split.folds


def _sizes(split: Split) -> str:
    return f"{len(split.train)} train, {len(split.validation)} validation, {len(split.test)} test"
