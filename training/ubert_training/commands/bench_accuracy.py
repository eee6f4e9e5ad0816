"""`ubert bench accuracy`."""

import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from ubert_model.config import RatingScale
from ubert_model.errors import ConfigError, InputError
from ubert_model.validation import require, require_choice
from ubert_training.accuracy.folds import SplitBy, make_folds
from ubert_training.commands import flags
from ubert_training.commands.options import FOLDS, console, load_reviews, require_unset
from ubert_training.pretraining.corpus_rows import target_rows
from ubert_training.pretraining.lexicon import load_lexicon
from ubert_training.running.seeds import MOST_SEED

if TYPE_CHECKING:
    from ubert_training.accuracy.summary import PlantedTruth
    from ubert_training.recipes.recipe import Recipe

DEFAULT_PRESET = "minilm"
REPORT_SECONDS = 60.0
"""The report is written at most this often, and at the end: with all cells of a large bench it takes seconds."""


def bench_accuracy_command(
    reviews: flags.Reviews,
    out: Annotated[Path, typer.Option(help="Report and cells. If killed, the same command continues in it.")],
    folds: Annotated[int | None, typer.Option(help=f"Number of folds, each tested once. Unset: {FOLDS}.")] = None,
    folds_seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=MOST_SEED,
            help="Seed that deals the pairs out to the folds; another shows whether a result hangs on the division. "
            "Unset: 0.",
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of the models, separated by commas.")] = "0,1,2",
    ablation_seeds: Annotated[
        int,
        typer.Option(
            help="Number of seeds for ablations, distortions by share, HFT, NARRE and HRDR; they are compared with "
            "U-BERT of the same seeds."
        ),
    ] = 1,
    pretraining_seeds: Annotated[
        int | None,
        typer.Option(
            help="Number of seeds for pre-training and for shuffling the reviews; the other seeds fine-tune the models "
            "that these pre-trained. Unset: all."
        ),
    ] = None,
    variants: Annotated[
        str, typer.Option(help="default (U-BERT, its controls and all baselines), all, or names separated by commas.")
    ] = "default",
    split: Annotated[str, typer.Option(help="folds, or time (one split: train on the past).")] = "folds",
    target: Annotated[list[str] | None, typer.Option(help="Target domain; repeat for several. Unset: all.")] = None,
    corpus: Annotated[
        str | None, typer.Option(help="Pre-training corpus: other-domains, target or both. Unset: the recipe's.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="paper, minilm or tiny: the preset whose recipe is measured. Unset: minilm.")
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            help="A recipe.json of `ubert tune`, instead of a preset; what it omits is minilm's. If it was tuned on "
            "these very reviews, its choice has seen some of the folds' test pairs."
        ),
    ] = None,
    pretrain_epochs: flags.PretrainEpochs = None,
    finetune_epochs: flags.FinetuneEpochs = None,
    lexicon: Annotated[
        str | None, typer.Option(help="Opinion words: a file or folder, as for `ubert pretrain`.")
    ] = None,
    truth: Annotated[Path | None, typer.Option(help="The truth.json that `ubert synth` wrote.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Start no further cell after this many minutes.")] = None,
    device: flags.Device = "auto",
) -> None:
    """Measure U-BERT, its variants and tuned baselines on the same folds; the report follows, at most once a minute."""
    started = time.monotonic()
    require_choice("split", split, SplitBy)
    require(ablation_seeds >= 1, "ablation_seeds", ablation_seeds, "use 1 or more of the seeds")
    require(
        pretraining_seeds is None or pretraining_seeds >= 1, "pretraining_seeds", pretraining_seeds, "use 1 or more"
    )
    require(minutes is None or minutes >= 0, "minutes", minutes, "use 0 or more")
    if split == "time":
        require_unset("a split by time has none: give it with --split folds", folds=folds, folds_seed=folds_seed)
    if recipe is not None:
        require_unset("the recipe takes its place: give one of them", preset=preset)
    model_seeds = parse_seeds(seeds)
    table, words = load_reviews(reviews), load_lexicon(lexicon)
    from ubert_training.accuracy.bench import at_intervals, compute_cells, ordered_cells
    from ubert_training.accuracy.cells import Cell, CellStore
    from ubert_training.accuracy.report import conclusions, write_report
    from ubert_training.accuracy.summary import summarise
    from ubert_training.accuracy.variants import choose_contenders
    from ubert_training.recipes.recipe import Recipe
    from ubert_training.recipes.workspace import Workspace
    from ubert_training.running.devices import DeviceChoice

    base = read_recipe(recipe, table.scale) if recipe else Recipe.of_preset(preset or DEFAULT_PRESET, table.scale)
    if base.pretraining is None:
        without = "the recipe has no pre-training: give it with one that has"
        require_unset(without, corpus=corpus, pretrain_epochs=pretrain_epochs, pretraining_seeds=pretraining_seeds)
    measured = base.on(cast(DeviceChoice, device)).shortened(
        pretrain_epochs=pretrain_epochs, finetune_epochs=finetune_epochs
    )
    if corpus is not None:
        measured = measured.varied(pretraining={"corpus": corpus})
    workspace = Workspace(directory=out, lexicon=words, only_measured=True)
    rows = target_rows(table, target or ())
    contenders = choose_contenders(
        variants, measured, workspace, model_seeds[:pretraining_seeds], other_domains=len(rows) < len(table)
    )
    planted = read_truth(truth) if truth is not None else None
    splits = out / "splits"
    usable = splits.is_dir() or not out.exists() or not any(out.iterdir())
    require(usable, "--out", str(out), "holds other files; give a new directory, or one of `ubert bench accuracy`")
    divided = make_folds(
        table, rows, cast(SplitBy, split), FOLDS if folds is None else folds, splits, seed=folds_seed or 0
    )
    cells = ordered_cells(divided, model_seeds, contenders, ablation_seeds=ablation_seeds)
    store = CellStore(out / "cells")

    def began(cell: Cell) -> None:
        elapsed = (time.monotonic() - started) / 60
        console.print(f"{elapsed:6.1f} min  fold {cell.fold.number}, seed {cell.seed}: {cell.contender.name}")

    def ended(_: Cell) -> None:
        write_report(summarise(cells, store, split, planted), out)

    until = math.inf if minutes is None else started + 60 * minutes
    try:
        compute_cells(cells, store, until=until, began=began, ended=at_intervals(REPORT_SECONDS, ended))
    finally:
        report = summarise(cells, store, split, planted)
        written = write_report(report, out)
    console.print(f"{' '.join(conclusions(report))}\n{', '.join(map(str, written))}")


def parse_seeds(text: str) -> list[int]:
    """Parse ``0,1,2``. Raises ``ConfigError``."""
    try:
        seeds = [int(seed) for seed in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"seeds = {text!r}: write whole numbers separated by commas, such as 0,1,2") from error
    require(len(set(seeds)) == len(seeds), "seeds", text, "name each seed once")
    require(min(seeds) >= 0 and max(seeds) <= MOST_SEED, "seeds", text, f"use 0 to {MOST_SEED}")
    return seeds


def read_recipe(path: Path, scale: RatingScale) -> "Recipe":
    """Read a recipe of `ubert tune`, and set its rating scale to ``scale``, whatever it was tuned on.

    Settings that a handwritten recipe leaves out of ``config``, ``pretraining`` and ``finetuning`` are those of the
    default preset. Raises ``InputError`` or ``ConfigError``.
    """
    from ubert_training.recipes.recipe import Recipe
    from ubert_training.recipes.search import TRIAL

    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error}): give the recipe.json of `ubert tune`") from error
    if isinstance(values, dict):
        values.pop(TRIAL, None)
    return Recipe.from_json(values, Recipe.of_preset(DEFAULT_PRESET, scale)).varied(model={"scale": scale})


def read_truth(path: Path) -> "PlantedTruth":
    """Read the reachable errors of a synthetic corpus. Raises ``InputError``."""
    from ubert_training.accuracy.summary import PlantedTruth

    try:
        reachable = json.loads(path.read_text(encoding="utf-8"))["mse"]
        return PlantedTruth(
            best_with_text=float(reachable["best_with_text"]), best_with_biases=float(reachable["best_with_biases"])
        )
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise InputError(f"{path} holds no planted truth ({error}): give the truth.json of `ubert synth`") from error
