"""`ubert precompute`."""

from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import numpy as np
import typer

from ubert_model.bundle import Bundle
from ubert_model.running.ray_engine import ray_engine_or_none
from ubert_model.running.sharding import Shard
from ubert_model.states import DEFAULT_CODEC, absolute_url, holds_store, open_store, without_password
from ubert_model.validation import require, require_choice
from ubert_training.commands import flags
from ubert_training.commands.options import console, load_reviews, table_file
from ubert_training.splits import PARTS, Split
from ubert_training.states.review_texts import write_texts

if TYPE_CHECKING:
    from ubert_training.states.precompute import PrecomputeReport


def precompute_command(
    reviews: flags.Reviews,
    bundle: Annotated[Path, typer.Option(help="Bundle directory that `ubert export` wrote.")],
    store: flags.Store,
    codec: Annotated[
        str,
        typer.Option(
            help="fp32, fp16, int8, int4, pq2 or pq1, alone or with /pool2 or /pool3; `ubert bench states` compares."
        ),
    ] = DEFAULT_CODEC,
    split: Annotated[Path | None, typer.Option(help="Write only the reviews in the --part of this split.")] = None,
    part: Annotated[list[str] | None, typer.Option(help="train, validation or test; repeat for several.")] = None,
    states: Annotated[Path | None, typer.Option(help="Cached states of the fine-tuning run, to save encoding.")] = None,
    shard: Annotated[str, typer.Option(help="Write only this shard of the reviews, such as 3/8.")] = "1/1",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be written; write nothing.")] = False,
    texts: Annotated[
        bool, typer.Option("--texts", help="Store the texts too, for the explanations of `ubert-serve --texts`.")
    ] = False,
    restore_removed: Annotated[
        bool, typer.Option("--restore-removed", help="Write reviews that were removed after this shard was finished.")
    ] = False,
    device: flags.Device = "auto",
    precision: Annotated[str, typer.Option(help="fp32, or bf16: faster, states off by half a percent.")] = "fp32",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads that encode; 0: one per core.")] = 0,
    engine: flags.Engine = "local",
    ray_address: flags.RayAddress = None,
    workers: flags.Workers = 0,
    worker_cpus: flags.WorkerCpus = 1,
) -> None:
    """Encode every review once and fill the store; if killed, run it again to write the rest.

    Once all of the given reviews are written, a later run on the same reviews does not write back those that were
    removed from the store since.
    """
    require(bool(split) == bool(part), "part", part, "give --split and --part together")
    require(precision in ("fp32", "bf16"), "precision", precision, "use fp32 or bf16")
    require(engine == "local" or not threads, "threads", threads, "Ray workers have --worker-cpus: leave it out")
    parsed_shard = Shard.parse(shard)
    table = load_reviews(reviews)
    opened = Bundle.load(bundle)
    table.require_scale(opened.manifest.config.scale, f"the bundle {bundle}")
    from ubert_training.running.devices import DeviceChoice, Precision
    from ubert_training.states.precompute import find_work, rows_served, write_missing
    from ubert_training.states.precompute_by_ray import PrecomputeJob, write_missing_by_ray
    from ubert_training.states.review_encoders import BankEncoder, choose_encoder

    require_choice("device", device, DeviceChoice)
    rows = served = rows_served(opened.identities, table)
    if len(served) < len(table):
        console.print(f"{len(table) - len(served):,} reviews left out: the bundle does not predict in their domains")
    if split and part:
        for name in part:
            require(name in PARTS, "part", name, f"use one of {', '.join(PARTS)}")
        divided = Split.load(split, table)
        rows = np.intersect1d(served, np.concatenate([getattr(divided, name) for name in part]))
    cluster = ray_engine_or_none(
        engine, address=ray_address, workers=workers, cpus=worker_cpus, gpus=1 if device == "cuda" else 0
    )
    require(cluster is None or states is None, "states", states, "Ray workers encode anew: leave it out")
    state_codec = opened.codec(codec)
    cached = None
    if states is not None:
        cached = BankEncoder.find(states, opened, table.texts_at(served))
        fp32 = f"the cached states in {states} are written as they are, in fp32: leave out one of the two"
        require(cached is None or precision == "fp32", "precision", precision, fp32)
        console.print(
            f"{states} holds no states of these reviews by this bundle's encoder: they are encoded"
            if cached is None
            else f"The states in {states} are written: no review is encoded"
        )
    # Opening an LMDB store that is not there would create it.
    with nullcontext() if dry_run and not holds_store(store) else closing(open_store(store)) as target:
        work = find_work(table, rows, opened, target, state_codec, shard=parsed_shard, restore=restore_removed)
        console.print(f"shard {parsed_shard}: {work.estimate}")
        if len(work.removed):
            console.print(f"{len(work.removed):,} reviews were removed since, and stay out without --restore-removed")
        if dry_run or target is None:
            return
        chosen_device, chosen_precision = cast(DeviceChoice, device), cast(Precision, precision)
        if cluster is None:
            encode = cached or choose_encoder(opened, chosen_device, chosen_precision, threads)
            report = write_missing(table, work, opened, target, state_codec, encode)
            stored = write_texts(table, work.rows, opened.tokenizer(), target, report.version) if texts else 0
        else:
            job = PrecomputeJob(
                reviews=table_file(reviews).absolute(),
                bundle=bundle.absolute(),
                store=absolute_url(store),
                codec=codec,
                texts=texts,
                device=chosen_device,
                precision=chosen_precision,
                threads=worker_cpus,
            )
            report = write_missing_by_ray(cluster, job, work, opened, target)
            stored = report.written.texts
        if texts:
            console.print(f"{stored} texts stored")
    _show(report, store)


def _show(report: "PrecomputeReport", store: str) -> None:
    written = report.written
    rate = f", {written.tokens / report.seconds:,.0f} tokens/s" if written.tokens else ""
    states = f"{written.tokens} tokens, {written.bytes / 1e6:.1f} MB of states{rate}"
    console.print(
        f"{without_password(store)}: {report.reviews} reviews, {report.already_there} already there, "
        f"{written.reviews} written ({states}), none left; namespace {report.version}"
    )
