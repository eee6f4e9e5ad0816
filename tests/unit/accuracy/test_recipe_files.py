"""Recipe files that `ubert bench accuracy` reads."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from support.accuracy_bench import BIAS, ROWS, TABLE, TINY
from ubert_model.config import RatingScale
from ubert_model.errors import ConfigError
from ubert_training.accuracy.folds import make_folds
from ubert_training.accuracy.variants import UBERT, choose_contenders
from ubert_training.commands.bench_accuracy import read_recipe
from ubert_training.recipes.recipe import Recipe
from ubert_training.recipes.workspace import Workspace
from ubert_training.reviews.table import TableMetadata


def test_a_recipe_tuned_on_another_scale_rates_on_that_of_the_table(workspace: Workspace, tmp_path: Path) -> None:
    """Otherwise ratings would be clipped to the recipe's scale."""
    scale = RatingScale(lowest=1, highest=10)
    table = replace(TABLE, rating=2 * TABLE.rating, metadata=TableMetadata(scale=scale))
    tuned = TINY.varied(pretrained=False)
    (tmp_path / "recipe.json").write_text(json.dumps(tuned.to_json()))
    recipe = read_recipe(tmp_path / "recipe.json", table.scale).on("cpu")
    assert recipe == tuned.varied(model={"scale": scale}).on("cpu")
    fold = make_folds(table, ROWS, "folds", 2, tmp_path / "splits")[0]
    recipe = recipe.shortened(pretrain_epochs=None, finetune_epochs=1)
    ubert, bias = choose_contenders(f"{UBERT},{BIAS.name}", recipe, workspace)
    errors = [contender.rate(fold, 0).squared_errors.mean() for contender in (ubert, bias)]
    assert errors[0] < 1.5 * errors[1]


@pytest.mark.parametrize("given", ["config", "pretraining", "finetuning"])
def test_the_default_preset_fills_in_what_a_recipe_file_leaves_out(given: str, tmp_path: Path) -> None:
    scale = RatingScale(lowest=1, highest=10)
    base, tuned = Recipe.of_preset("minilm", scale), TINY.seeded(3)
    (tmp_path / "plain.json").write_text(json.dumps({given: tuned.to_json()[given]}))
    expected = replace(base, **{given: getattr(tuned, given)}).varied(model={"scale": scale})
    assert read_recipe(tmp_path / "plain.json", scale) == expected


def test_the_default_preset_fills_in_single_settings_that_a_recipe_file_leaves_out(tmp_path: Path) -> None:
    given = {"config": {"state_dim": 64}, "pretraining": {}, "finetuning": {"loop": {"learning_rate": 0.5}}}
    (tmp_path / "plain.json").write_text(json.dumps(given))
    base = Recipe.of_preset("minilm", RatingScale())
    expected = base.varied(model={"state_dim": 64}, learning_rate=0.5)
    assert read_recipe(tmp_path / "plain.json", RatingScale()) == expected


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"pretrained": None}, r"recipe = \['pretrained'\]: a recipe has no such part"),
        ({"finetuning": {"lop": {}}}, "not a recipe of this version"),
        ({"pretraining": {"loop": 3}}, "not a recipe of this version"),
        ({"config": {"state_dimension": 3}}, r"\['state_dimension'\]"),
        ({"config": {"state_dim": 64.5}}, "state_dim = 64.5: use a whole number or null"),
        ({"finetuning": {"loop": {"epochs": "3"}}}, "epochs = '3': use a whole number"),
        ({"finetuning": {"loop": {"batch_size": 16.5}}}, "batch_size = 16.5: use a whole number"),
        ({"finetuning": {"loop": {"weight_decay": -1}}}, "weight_decay = -1: use 0 or more"),
        ({"finetuning": {"loop": {"max_gradient_norm": -1}}}, "max_gradient_norm = -1: use a number above 0"),
        ({"finetuning": {"mode": ["cached"]}}, r"mode = \['cached'\]: use one of 'cached', 'end-to-end'"),
        ({"pretraining": {"beta": True}}, "beta = True: use a number"),
        ([], r"recipe = \[\]: write an object of config, pretraining, finetuning"),
    ],
)
def test_an_invalid_recipe_file_is_refused(recipe: object, message: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(ConfigError, match=message):
        read_recipe(tmp_path / "recipe.json", RatingScale())
