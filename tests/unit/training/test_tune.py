"""`ubert tune`: chooses by the validation part alone, resumes, and leaves a model and a recipe for later commands."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from support.small_corpus import small_table
from ubert_model.config import RatingScale
from ubert_model.errors import ConfigError
from ubert_training.cli import make_app
from ubert_training.commands.tune import trial_table
from ubert_training.errors import DivergedError
from ubert_training.evaluation.rated_pairs import RatedPairs
from ubert_training.finetuning.finetune_options import FinetuneOptions
from ubert_training.finetuning.finished_run import FinishedRun
from ubert_training.pretraining.lexicon import Lexicon
from ubert_training.pretraining.pretrain_options import PretrainOptions
from ubert_training.recipes.recipe import Recipe
from ubert_training.recipes.search import KIND, RECIPE, TRIALS, Choice, RecipeSearch, Trial, TrialResult
from ubert_training.running.stage import Stage, read_stage
from ubert_training.splits import random_split

TABLE = small_table(users=30)
SPLIT = random_split(TABLE, TABLE.rows_of_domains("domain-0"), seed=0)
BASE = Recipe.of_preset("tiny", RatingScale()).shortened(pretrain_epochs=1, finetune_epochs=1)
LEXICON = Lexicon(words=frozenset({"good"}), source="the test")
FEW = (TRIALS[0], Trial(name="state dimension 8", model={"state_dim": 8}))


def search(out: Path, *trials: Trial, seed: int = 0) -> RecipeSearch:
    return RecipeSearch(table=TABLE, split=SPLIT, base=BASE, lexicon=LEXICON, seed=seed, out=out, trials=trials)


def result_of(name: str, errors: list[float]) -> TrialResult:
    return TrialResult(trial=Trial(name=name), squared_errors=np.array(errors), bias_mse=1.0, share=1.0)


def test_the_first_trial_within_a_standard_error_of_the_best_is_chosen() -> None:
    rng = np.random.default_rng(0)
    best = rng.normal(0.5, 0.1, 400)
    noise = rng.normal(0, 0.2, 400)
    noise -= noise.mean()
    worse, equal = best + noise + 0.1, best + noise + 0.005  # the standard error is 0.01
    results = [
        result_of("worse", worse.tolist()),
        result_of("equal", equal.tolist()),
        result_of("best", best.tolist()),
    ]
    choice = Choice(results=results)
    assert (choice.best.trial.name, choice.chosen.trial.name) == ("best", "equal")
    assert Choice(results=results[::2]).chosen.trial.name == "best"
    assert choice.above_best(choice.best) == (0.0, 0.0)


def test_with_a_single_validation_pair_the_first_trial_is_chosen() -> None:
    results = [result_of("cheap", [1.0]), result_of("best", [0.5])]
    assert Choice(results=results).chosen.trial.name == "cheap"


def test_trials_have_different_names_and_recipes() -> None:
    base = Recipe.of_preset("minilm", RatingScale())
    assert len({trial.name for trial in TRIALS}) == len(TRIALS)
    assert len({json.dumps(trial.recipe(base, 0).to_json()) for trial in TRIALS}) == len(TRIALS)


def test_a_recipe_survives_json() -> None:
    for trial in TRIALS:
        recipe = trial.recipe(BASE, seed=3)
        assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    with pytest.raises(ConfigError, match="run `ubert tune` again"):
        Recipe.from_json({"config": {}})


def test_device_seed_and_epochs_are_changed_in_both_stages() -> None:
    def stages(recipe: Recipe) -> tuple[PretrainOptions, FinetuneOptions]:
        assert recipe.pretraining is not None
        return recipe.pretraining, recipe.finetuning

    base = Recipe.of_preset("tiny", RatingScale())
    assert [stage.device for stage in stages(base.on("cuda"))] == ["cuda", "cuda"]
    assert [stage.loop.seed for stage in stages(base.seeded(5))] == [5, 5]
    short = base.shortened(pretrain_epochs=3, finetune_epochs=7)
    assert [stage.loop.epochs for stage in stages(short)] == [3, 7]
    assert short.shortened(pretrain_epochs=None, finetune_epochs=None) == short


def test_a_search_runs_every_trial_once_on_validation_only_and_keeps_one_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    parts: list[str] = []
    rate = RatedPairs.of

    def recorded(run: FinishedRun, part: Literal["validation", "test"]) -> RatedPairs:
        parts.append(part)
        return rate(run, part)

    monkeypatch.setattr(RatedPairs, "of", recorded)
    first = search(tmp_path, *FEW[:1]).try_all(lambda trial: begun.append(trial.name))
    both = search(tmp_path, *FEW).try_all(lambda trial: begun.append(trial.name))
    assert begun == [trial.name for trial in FEW]
    assert parts == ["validation"] * len(FEW)
    np.testing.assert_array_equal(first.results[0].squared_errors, both.results[0].squared_errors)
    for choice in (first, both, both):
        run = search(tmp_path, *FEW).publish(choice)
        assert read_stage(run)["inputs"]["config"]["state_dim"] == choice.chosen.trial.model.get("state_dim", 16)
        assert len(list((tmp_path / "states").glob("states-*.f32"))) == 1
        assert not (tmp_path / "work" / "runs").exists()
        assert not (tmp_path / "work" / "states").exists()


@pytest.mark.parametrize("killed_at", ["finetuned", "states", "runs"])
def test_a_search_killed_while_it_moves_the_chosen_model_does_not_train_it_again(
    killed_at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = search(tmp_path, *FEW[:1]).try_all(lambda _: None)
    (run,) = (tmp_path / "work" / "runs").iterdir()
    (run / "trained once").touch()
    rename, remove = Path.rename, shutil.rmtree

    def moved(source: Path, target: Path) -> Path:
        if target.name == killed_at:
            raise KeyboardInterrupt
        return rename(source, target)

    def removed(path: Path, **options: Any) -> None:
        if path.name == killed_at:
            raise KeyboardInterrupt
        remove(path, **options)

    with monkeypatch.context() as killed:
        killed.setattr(Path, "rename", moved)
        killed.setattr(shutil, "rmtree", removed)
        with pytest.raises(KeyboardInterrupt):
            search(tmp_path, *FEW[:1]).publish(choice)
    assert (search(tmp_path, *FEW[:1]).publish(choice) / "trained once").is_file()
    assert len(list((tmp_path / "states").glob("states-*.f32"))) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["finetuned", RECIPE, "states", "work"]


def test_a_search_refuses_a_directory_that_is_not_its_own(tmp_path: Path) -> None:
    for name in ("finetuned", "states"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "of-the-user").touch()
    begun: list[str] = []

    def searched(out: str, seed: int, *, force: bool) -> Path:
        one_trial = search(tmp_path / out, *FEW[:1], seed=seed)
        return one_trial.run(lambda trial: begun.append(trial.name), force=force)[1]

    for force in (False, True):
        with pytest.raises(ConfigError, match="no output of `ubert tune`; give a new directory"):
            searched("data", 0, force=force)
    assert len(list(tmp_path.rglob("of-the-user"))) == 2
    assert not begun
    for _ in range(2):
        run = searched("own", 0, force=False)
    assert len(begun) == 1
    with pytest.raises(ConfigError, match=r"differs in seed.*--force to discard"):
        searched("own", 1, force=False)
    other_words = Lexicon(words=frozenset({"bad"}), source="the test")
    with pytest.raises(ConfigError, match="differs in lexicon"):
        replace(search(tmp_path / "own", *FEW[:1]), lexicon=other_words).run(print)
    assert read_stage(run)["inputs"]["options"]["loop"]["seed"] == 0
    assert read_stage(searched("own", 1, force=True))["inputs"]["options"]["loop"]["seed"] == 1


@pytest.mark.parametrize("force", [False, True])
def test_a_trial_that_cannot_be_trained_is_refused_before_the_directory_is_opened(
    tmp_path: Path, *, force: bool
) -> None:
    former = Stage(tmp_path / "former", KIND, {"seed": 7})
    former.open()
    too_deep = Trial(name="more layers than there are", model={"encoder_layers": 9})
    for out in ("former", "new"):
        with pytest.raises(ConfigError, match="encoder_layers = 9: the backbone has 2 layers"):
            search(tmp_path / out, *FEW, too_deep).run(print, force=force)
    assert [path.name for path in tmp_path.iterdir()] == ["former"]
    assert read_stage(tmp_path / "former")["inputs"] == {"seed": 7}


def test_a_trial_that_diverges_is_recorded_with_its_reason_and_the_others_go_on(tmp_path: Path) -> None:
    diverging = Trial(name="diverging", pretrained=False, learning_rate_factor=1e30)
    begun: list[str] = []
    for _ in range(2):
        choice, run = search(tmp_path / "out", diverging, FEW[0]).run(lambda trial: begun.append(trial.name))
    assert begun == [diverging.name, FEW[0].name]
    assert choice.chosen.trial == FEW[0]
    assert read_stage(run)["finished"]
    assert "training diverged in epoch 1" in choice.failures[diverging.name]
    Console(file=(printed := io.StringIO()), width=200).print(trial_table(choice))
    assert "training diverged in epoch 1" in printed.getvalue()
    with pytest.raises(DivergedError, match=r"diverging: learning_rate = .*: training diverged"):
        search(tmp_path / "none", diverging).run(print)


def test_the_chosen_model_can_be_evaluated_and_its_recipe_benched(tmp_path: Path) -> None:
    TABLE.save(tmp_path / "reviews.parquet")
    SPLIT.save(tmp_path / "split.parquet", TABLE)
    given = ["--reviews", str(tmp_path), "--split", str(tmp_path / "split.parquet"), "--out", str(tmp_path / "out")]
    short = ["--preset", "tiny", "--pretrain-epochs", "1", "--finetune-epochs", "1"]
    done = CliRunner().invoke(make_app(["tune"]), ["tune", *given, *short], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert all(trial.name in done.output for trial in TRIALS)
    run = tmp_path / "out" / "finetuned"
    evaluated = CliRunner().invoke(make_app(["evaluate"]), ["evaluate", "--reviews", str(tmp_path), "--run", str(run)])
    assert evaluated.exit_code == 0, evaluated.output
    bench = ["bench", "accuracy", "--reviews", str(tmp_path), "--out", str(tmp_path / "bench"), "--folds", "2"]
    bench += ["--minutes", "0", "--recipe", str(tmp_path / "out" / RECIPE)]
    assert CliRunner().invoke(make_app(["bench"]), bench, catch_exceptions=False).exit_code == 0
