"""`ubert demo`."""

import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from ubert_model.states import DEFAULT_CODEC, open_store
from ubert_training.commands.options import Force, Seed, console, load_reviews
from ubert_training.demo import best_items, check_served_ratings, choose_reviews, running_service
from ubert_training.evaluation.evaluate import evaluate, evaluation_table
from ubert_training.evaluation.plots import PLOT, plot_evaluation
from ubert_training.finetuning.finetune import finetune
from ubert_training.finetuning.finished_run import FinishedRun
from ubert_training.finetuning.recipe import Recipe
from ubert_training.make_bundle import export_bundle
from ubert_training.pretraining.lexicon import load_lexicon
from ubert_training.pretraining.pretrain import pretrain
from ubert_training.reviews.importer import import_reviews
from ubert_training.reviews.options import ImportOptions
from ubert_training.splits import random_split
from ubert_training.states.precompute import precompute
from ubert_training.states.review_texts import write_texts
from ubert_training.states.stored_ratings import ReadPairs


def demo_command(
    reviews: Annotated[Path | None, typer.Option(help="Your review file; unset: downloaded, or synthetic.")] = None,
    item_domains: Annotated[Path | None, typer.Option(help="File of item<TAB>domain lines for it.")] = None,
    dir: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("ubert-demo"),
    serve: Annotated[bool, typer.Option(help="Leave the service up at the end.")] = True,
    port: Annotated[int, typer.Option(help="Port of the service; 0: any free one.")] = 8000,
    preset: Annotated[str, typer.Option(help="minilm, or tiny for a quick look at the plumbing.")] = "minilm",
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Import, pre-train, fine-tune, evaluate, precompute and serve, then score real pairs over HTTP.

    Needs no Redis, no GPU and no model hub. Killed and started again it continues where it stopped.
    """
    started, directory = time.monotonic(), dir  # settings go by the names of parameters
    steps = _Steps(started)
    directory.mkdir(parents=True, exist_ok=True)
    states, split_path, run = directory / "states", directory / "split.parquet", directory / "finetuned"
    store_url = f"lmdb:{directory / 'store'}"

    steps.begin("reviews")
    source = choose_reviews(reviews, item_domains, directory, seed)
    console.print(source.description, markup=False)
    import_options = ImportOptions(item_domains=source.item_domains)
    imported = import_reviews(source.files, directory / "reviews", import_options, force=force)
    table = load_reviews(directory / "reviews")
    console.print(f"{imported.records:,} lines read, {len(table):,} reviews kept, {imported.bad:,} set aside as bad")
    split = random_split(table, np.arange(len(table)), seed)
    split.save(split_path, table)

    recipe = Recipe.of_preset(preset, table.scale).seeded(seed)
    assert recipe.pretraining is not None  # every preset has it
    lexicon = load_lexicon(None)
    steps.begin(f"pre-training ({len(lexicon.words):,} opinion words of {lexicon.source})")
    pretrained = pretrain(
        table, split, recipe.config, lexicon, recipe.pretraining, directory / "pretrained", force=force
    )
    steps.begin("fine-tuning")
    finetune(table, split, recipe.config, recipe.finetuning, run, pretrained=pretrained, states=states, force=force)
    steps.begin("evaluation on the test part")
    evaluation = evaluate(table, run, states=states)
    plot_evaluation(evaluation, run / PLOT)

    steps.begin("bundle and store")
    bundle = export_bundle(run, directory / "bundle")
    with closing(open_store(store_url)) as store:
        report = precompute(table, split.train, bundle, store, codec=DEFAULT_CODEC, states=states)
        write_texts(table, split.train, bundle.tokenizer(), store, report.version)
    console.print(f"bundle {bundle.manifest.bundle_id}; {report.reviews:,} reviews of the training part in the store")

    steps.begin("service")
    with running_service(bundle.path, store_url, DEFAULT_CODEC, port, directory / "service.log") as service:
        read = ReadPairs.of(FinishedRun.open(table, run, states=states), "test")
        checked = check_served_ratings(service.url, read, bundle.codec(DEFAULT_CODEC))
        checked.save(directory / "served.json")
        console.print(
            f"{checked.pairs} test pairs rated over HTTP from {checked.codec} states: MSE {checked.mse:.4f}, at most "
            f"{checked.largest_difference:.1e} stars from the model's own ratings of these states"
        )
        user = table.user[split.test[0]]
        items = sorted(set(table.item))
        best = ", ".join(f"{entry['item']} {entry['rating']:.2f}" for entry in best_items(service.url, user, items, 5))
        console.print(f"best of {len(items)} items for user {user}: {best}", markup=False)
        console.print(evaluation_table(evaluation))
        _show_places(directory, store_url, time.monotonic() - started)
        if serve:
            console.print(f"The service answers at {service.url} (Ctrl-C ends it). Try:")
            pair = f'{{"pairs": [{{"user": "{user}", "item": "{items[0]}"}}]}}'
            command = f"  curl -s {service.url}/predict -H 'Content-Type: application/json' -d '{pair}'"
            console.print(command, markup=False, soft_wrap=True)
            with suppress(KeyboardInterrupt):
                service.process.wait()


class _Steps:
    """Headlines with the time since the start."""

    def __init__(self, started: float) -> None:
        self._started = started

    def begin(self, name: str) -> None:
        console.rule(f"{name} · {time.monotonic() - self._started:.0f} s", align="left")


def _show_places(directory: Path, store_url: str, seconds: float) -> None:
    places = {
        "review table": directory / "reviews",
        "split": directory / "split.parquet",
        "pre-trained model": directory / "pretrained",
        "fine-tuned model, evaluation and its plot": directory / "finetuned",
        "bundle": directory / "bundle",
        "state store": store_url,
        "service log": directory / "service.log",
    }
    for name, place in places.items():
        console.print(f"  {name}: {place}", markup=False, soft_wrap=True)
    console.print(f"done in {seconds / 60:.1f} minutes")
