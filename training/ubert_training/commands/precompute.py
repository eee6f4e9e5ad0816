"""`ubert precompute`."""

from contextlib import closing
from pathlib import Path
from typing import Annotated, cast

import numpy as np
import typer

from ubert_model.bundle import Bundle
from ubert_model.config import require
from ubert_model.states import codec_names, open_store
from ubert_training.commands.options import Device, Reviews, console, load_reviews
from ubert_training.devices import DeviceChoice
from ubert_training.precompute import precompute
from ubert_training.splits import PARTS, Split


def precompute_command(
    reviews: Reviews,
    bundle: Annotated[Path, typer.Option(help="What `ubert export` wrote.")],
    store: Annotated[str, typer.Option(help="redis://…, rediss://… or lmdb:DIRECTORY.")],
    codec: Annotated[str, typer.Option(help=f"Form of a stored state: {', '.join(codec_names())}.")] = "fp32",
    split: Annotated[Path | None, typer.Option(help="Only reviews of some parts of this split.")] = None,
    part: Annotated[list[str] | None, typer.Option(help="train, validation or test; repeat for several.")] = None,
    states: Annotated[Path | None, typer.Option(help="Cached states of the fine-tuning run, to save encoding.")] = None,
    device: Device = "auto",
) -> None:
    """Encode every review once and fill the store; killed and started again it writes what is left."""
    require(bool(split) == bool(part), "part", part, "give --split and --part together")
    table = load_reviews(reviews)
    rows = np.arange(len(table))
    if split and part:
        for name in part:
            require(name in PARTS, "part", name, f"use one of {', '.join(PARTS)}")
        divided = Split.load(split, table)
        rows = np.sort(np.concatenate([getattr(divided, name) for name in part]))
    opened = Bundle.load(bundle)
    with closing(open_store(store)) as target:
        report = precompute(table, rows, opened, target, codec=codec, device=cast(DeviceChoice, device), states=states)
    console.print(
        f"{store}: {report.reviews} reviews, {report.already_there} were there, {report.written} written "
        f"({report.tokens} tokens, {report.bytes / 1e6:.1f} MB of states), none left; namespace {report.version}"
    )
