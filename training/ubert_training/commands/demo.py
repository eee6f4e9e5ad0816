"""`ubert demo`."""

import json
import shlex
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.table import Table

from ubert_model import config
from ubert_model.bundle import Bundle
from ubert_model.states import DEFAULT_CODEC, open_store
from ubert_training.commands import flags
from ubert_training.commands.options import console, import_options, load_reviews, require_unset
from ubert_training.demo import (
    best_items,
    check_served_ratings,
    choose_reviews,
    rankable_items,
    require_free_port,
    running_service,
)
from ubert_training.reviews.importer import import_reviews
from ubert_training.reviews.options import ImportOptions
from ubert_training.reviews.table import ReviewTable
from ubert_training.splits import Split, random_split

if TYPE_CHECKING:
    from ubert_training.recipes.recipe import Recipe

PAIRS_CHECKED = 500


def demo_command(
    reviews: Annotated[Path | None, typer.Option(help="Your review file; unset: downloaded, or synthetic.")] = None,
    item_domains: Annotated[Path | None, typer.Option(help="File of item<TAB>domain lines for --reviews.")] = None,
    columns: flags.Columns = None,
    scale: flags.Scale = None,
    core: flags.Core = None,
    max_bad: flags.MaxBad = None,
    dir: Annotated[Path, typer.Option(help="Directory of all results.")] = Path("ubert-demo"),
    serve: Annotated[bool, typer.Option(help="Keep the service running at the end.")] = True,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the service; 0: any free one.")] = 8000,
    preset: Annotated[str, typer.Option(help="minilm, or tiny for a quick look at the plumbing.")] = "minilm",
    seed: flags.Seed = 0,
    force: flags.Force = False,
) -> None:
    """Import, pre-train, fine-tune, evaluate, precompute and serve, then score real pairs over HTTP.

    Needs no Redis, no GPU and no model hub. If killed, run it again: it continues where it stopped.
    """
    steps, demo = _Steps(), _Demo(directory=dir, preset=preset, seed=seed, force=force)
    config.preset(preset)  # refuses an unknown one
    if reviews is None:
        require_unset(
            "it is about your own file: give it with --reviews",
            item_domains=item_domains,
            columns=columns,
            scale=scale,
            core=core,
            max_bad=max_bad,
        )
    options = import_options(item_domains=item_domains, columns=columns, scale=scale, core=core, max_bad=max_bad)
    require_free_port(port)
    dir.mkdir(parents=True, exist_ok=True)

    steps.begin("reviews")
    table, split = demo.import_reviews(reviews, options)
    steps.begin("pre-training")
    demo.pretrain(table, split)
    steps.begin("fine-tuning")
    demo.finetune(table, split)
    steps.begin("evaluation on the test part")
    scores = demo.evaluate(table)
    steps.begin("bundle and store")
    bundle = demo.store(table, split)
    steps.begin("service")
    with running_service(bundle.path, demo.store_url, DEFAULT_CODEC, port, dir / "service.log") as service:
        user, items = table.user[split.test[0]], rankable_items(table)
        demo.query(service.url, table, bundle, user, items)
        console.print(scores)
        _show_results(dir, demo.store_url, steps.seconds)
        if serve:
            console.print(f"The service is running at {service.url} (Ctrl-C stops it). Try:")
            pair = json.dumps({"pairs": [{"user": user, "item": items[0]}]}, ensure_ascii=False)
            header = "-H 'Content-Type: application/json'"
            console.print(f"  curl -s {service.url}/predict {header} -d {shlex.quote(pair)}")
            with suppress(KeyboardInterrupt):
                service.process.wait()


@dataclass(frozen=True, kw_only=True)
class _Demo:
    """The steps. Each reads what the ones before it left in ``directory``."""

    directory: Path
    preset: str
    seed: int
    force: bool

    @property
    def store_url(self) -> str:
        return f"lmdb:{self.directory / 'store'}"

    @property
    def _states(self) -> Path:
        return self.directory / "states"

    @property
    def _run(self) -> Path:
        return self.directory / "finetuned"

    @property
    def _pretrained(self) -> Path:
        return self.directory / "pretrained"

    def _recipe(self, table: ReviewTable) -> "Recipe":
        from ubert_training.recipes.recipe import Recipe

        return Recipe.of_preset(self.preset, table.scale).seeded(self.seed)

    def import_reviews(self, reviews: Path | None, options: ImportOptions) -> tuple[ReviewTable, Split]:
        source = choose_reviews(reviews, options, self.directory, self.seed, force=self.force)
        console.print(source.description)
        imported = import_reviews(source.files, self.directory / "reviews", source.options, force=self.force)
        table = load_reviews(self.directory / "reviews")
        console.print(
            f"{imported.records:,} lines read, {len(table):,} reviews kept, {imported.bad:,} bad lines set aside"
        )
        return table, random_split(table, np.arange(len(table)), self.seed)

    def pretrain(self, table: ReviewTable, split: Split) -> None:
        from ubert_training.pretraining.lexicon import load_lexicon
        from ubert_training.pretraining.pretrain import pretrain

        recipe, lexicon = self._recipe(table), load_lexicon(None)
        assert recipe.pretraining is not None  # every preset has it
        console.print(f"{len(lexicon.words):,} opinion words from {lexicon.source}")
        pretrain(table, split, recipe.config, lexicon, recipe.pretraining, self._pretrained, force=self.force)
        # Only now: pre-training has refused a directory of another seed, whose split must not be overwritten.
        split.save(self.directory / "split.parquet", table)

    def finetune(self, table: ReviewTable, split: Split) -> None:
        from ubert_training.finetuning.finetune import finetune

        recipe = self._recipe(table)
        finetune(
            table,
            split,
            recipe.config,
            recipe.finetuning,
            self._run,
            pretrained=self._pretrained,
            states=self._states,
            force=self.force,
        )

    def evaluate(self, table: ReviewTable) -> Table:
        from ubert_training.evaluation.evaluate import evaluate, evaluation_table
        from ubert_training.evaluation.plots import PLOT, plot_evaluation

        evaluation = evaluate(table, self._run, states=self._states)
        plot_evaluation(evaluation, self._run / PLOT)
        return evaluation_table(evaluation)

    def store(self, table: ReviewTable, split: Split) -> Bundle:
        from ubert_training.export.make_bundle import export_bundle
        from ubert_training.states.precompute import precompute
        from ubert_training.states.review_texts import write_texts

        bundle = export_bundle(self._run, self.directory / "bundle")
        with closing(open_store(self.store_url)) as store:
            report = precompute(table, split.train, bundle, store, codec=DEFAULT_CODEC, states=self._states)
            write_texts(table, split.train, bundle.tokenizer(), store, report.version)
        stored = f"{report.reviews:,} reviews of the training part in the store"
        console.print(f"bundle {bundle.manifest.bundle_id}; {stored}")
        return bundle

    def query(self, url: str, table: ReviewTable, bundle: Bundle, user: str, items: Sequence[str]) -> None:
        from ubert_training.evaluation.read_pairs import ReadPairs
        from ubert_training.finetuning.finished_run import FinishedRun

        run = FinishedRun.open(table, self._run, states=self._states)
        read = ReadPairs.of(run, run.split.test[:PAIRS_CHECKED])
        checked = check_served_ratings(url, read, bundle.codec(DEFAULT_CODEC))
        checked.save(self.directory / "served.json")
        console.print(
            f"{checked.pairs} test pairs rated over HTTP from {checked.codec} states: MSE {checked.mse:.4f}, at most "
            f"{checked.largest_difference:.1e} stars from the model's own ratings of these states"
        )
        best = ", ".join(f"{entry['item']} {entry['rating']:.2f}" for entry in best_items(url, user, items, 5))
        console.print(f"best of {len(items)} items for user {user}: {best}")


class _Steps:
    """Prints a heading for each step, with the time since the start."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def begin(self, name: str) -> None:
        console.rule(f"{name} · {self.seconds:.0f} s", align="left")


def _show_results(directory: Path, store_url: str, seconds: float) -> None:
    results = {
        "review table": directory / "reviews",
        "split": directory / "split.parquet",
        "pre-trained model": directory / "pretrained",
        "fine-tuned model, evaluation and its plot": directory / "finetuned",
        "bundle": directory / "bundle",
        "state store": store_url,
        "service log": directory / "service.log",
    }
    for name, location in results.items():
        console.print(f"  {name}: {location}")
    console.print(f"done in {seconds / 60:.1f} minutes")
