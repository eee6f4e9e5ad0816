"""`ubert tune`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.table import Table

from ubert_training.commands import flags
from ubert_training.commands.options import console, load_reviews
from ubert_training.pretraining.lexicon import load_lexicon
from ubert_training.running.disk import require_outside
from ubert_training.splits import Split

if TYPE_CHECKING:
    from ubert_training.recipes.search import Choice


def tune_command(
    reviews: flags.Reviews,
    split: flags.SplitFile,
    out: Annotated[Path, typer.Option(help="Directory to write. If killed, the same command continues in it.")],
    preset: flags.Preset = "minilm",
    pretrain_epochs: flags.PretrainEpochs = None,
    finetune_epochs: flags.FinetuneEpochs = None,
    lexicon: Annotated[str | None, typer.Option(help="Opinion words, as for `ubert pretrain`.")] = None,
    device: flags.Device = "auto",
    seed: flags.Seed = 0,
    force: flags.Force = False,
) -> None:
    """Try a handful of recipes and keep the cheapest that validation cannot tell from the best.

    The chosen model is ready for `ubert evaluate` and `ubert export`, its recipe.json for `ubert bench accuracy`.
    """
    table = load_reviews(reviews)
    divided, words = Split.load(split, table), load_lexicon(lexicon)
    from ubert_training.recipes.recipe import Recipe
    from ubert_training.recipes.search import RECIPE, TRIALS, RecipeSearch
    from ubert_training.running.devices import DeviceChoice

    base = Recipe.of_preset(preset, table.scale).on(cast(DeviceChoice, device))
    base = base.shortened(pretrain_epochs=pretrain_epochs, finetune_epochs=finetune_epochs)
    if force:
        require_outside(out, (reviews, split, lexicon, base.config.backbone))
    names = [trial.name for trial in TRIALS]
    search = RecipeSearch(table=table, split=divided, base=base, lexicon=words, seed=seed, out=out)
    choice, run = search.run(
        lambda trial: console.print(f"{names.index(trial.name) + 1} of {len(names)}: {trial.name}"), force=force
    )
    console.print(trial_table(choice))
    console.print(f"{choice.chosen.trial.name}: {run}, {out / RECIPE}")
    console.print(f"Next: ubert evaluate --reviews {reviews} --run {run}")


def trial_table(choice: "Choice") -> Table:
    """All trials in order, the chosen one in bold, those that failed last."""
    table = Table(
        title="Validation part; the first recipe within one standard error of the best is chosen",
        caption=f"the bias part alone: {choice.chosen.bias_mse:.4f}",
    )
    for column in ("recipe", "MSE", "above the best, ± its standard error", "network's correction kept"):
        table.add_column(column, justify="left" if column == "recipe" else "right")
    for result in choice.results:
        above, error = choice.above_best(result)
        cells = (result.trial.name, f"{result.mse:.4f}", f"{above:.4f} ± {error:.4f}", f"{result.share:.0%}")
        table.add_row(*cells, style="bold" if result is choice.chosen else None)
    for name, failure in choice.failures.items():
        table.add_row(name, "failed", failure)
    return table
