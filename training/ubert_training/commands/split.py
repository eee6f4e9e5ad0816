"""`ubert split`."""

from pathlib import Path
from typing import Annotated

import typer

from ubert_model.config import require
from ubert_training.commands.options import Reviews, Seed, console, load_reviews
from ubert_training.pretraining.corpus_rows import target_rows
from ubert_training.splits import Split, k_fold_splits, random_split, time_split


def split_command(
    reviews: Reviews,
    out: Annotated[Path, typer.Option(help="File to write; folds are numbered: split.parquet → split-0.parquet …")],
    kind: Annotated[str, typer.Option(help="random (80/10/10), folds, or time (train on the past).")] = "random",
    seed: Seed = 0,
    folds: Annotated[int, typer.Option(help="Number of folds, with --kind folds.")] = 5,
    target: Annotated[list[str] | None, typer.Option(help="Target domain; repeat for several. Unset: all.")] = None,
) -> None:
    """Divide the reviews of the target domain into train, validation and test, once, for every later step."""
    require(kind in ("random", "folds", "time"), "kind", kind, "use random, folds or time")
    table = load_reviews(reviews)
    rows = target_rows(table, target or ())
    if kind == "folds":
        splits = dict(enumerate(k_fold_splits(table, rows, folds, seed)))
        named = {out.with_name(f"{out.stem}-{fold}{out.suffix}"): split for fold, split in splits.items()}
    else:
        named = {out: random_split(table, rows, seed) if kind == "random" else time_split(table, rows)}
    for path, split in named.items():
        split.save(path, table)
        console.print(f"{path}: {_sizes(split)}")


def _sizes(split: Split) -> str:
    return f"{len(split.train)} train, {len(split.validation)} validation, {len(split.test)} test"
