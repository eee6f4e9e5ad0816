"""The command line `ubert`: precedence of settings, one line for every expected error, help without heavy imports."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from support.small_corpus import small_table
from ubert_model.config import RatingScale
from ubert_model.errors import ConfigError
from ubert_training.cli import COMMANDS, main, make_app
from ubert_training.recipes.recipe import Recipe
from ubert_training.splits import Split, random_split


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    small_table().save(tmp_path / "reviews.parquet")
    return tmp_path


def seed_of(reviews: Path) -> int | None:
    return Split.load(reviews / "split.parquet", small_table()).seed


def test_a_setting_comes_from_the_flag_else_environment_else_file_else_default(reviews: Path) -> None:
    config = reviews / "run.toml"
    config.write_text("[split]\nseed = 1\n")
    base = ["split", "--reviews", str(reviews), "--out", str(reviews / "split.parquet"), "--force"]
    runner = CliRunner()
    for environment, flags, expected in (
        ({}, [], 1),
        ({"UBERT_SPLIT_SEED": "2"}, [], 2),
        ({"UBERT_SPLIT_SEED": "2"}, ["--seed", "3"], 3),
    ):
        result = runner.invoke(make_app(["split"]), ["--config", str(config), *base, *flags], env=environment)
        assert result.exit_code == 0, result.output
        assert seed_of(reviews) == expected
    assert runner.invoke(make_app(["split"]), base).exit_code == 0
    assert seed_of(reviews) == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[splitt]\nseed = 1\n", r"\[splitt\] is not a command"),
        ("[split]\nsede = 1\n", r"\[split\] has no sede"),
        ("[split\n", "run.toml"),
    ],
)
def test_an_invalid_config_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "run.toml").write_text(content)
    called = ["--config", str(tmp_path / "run.toml"), "split", "--reviews", "r", "--out", "o"]
    with pytest.raises(ConfigError, match=message):
        CliRunner().invoke(make_app(["split"]), called, catch_exceptions=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretrain", "--split", "s", "--out", "o", "--reviews", "nowhere"], "no review table at nowhere"),
        (["evaluate", "--reviews", "{reviews}", "--run", "{reviews}"], "holds no stage.json"),
        (["split", "--reviews", "{reviews}", "--out", "s", "--target", "Toys"], "no review is of domain Toys"),
        (["split", "--reviews", "{reviews}", "--out", "s", "--kind", "best"], "kind = 'best'"),
        (
            ["precompute", "--reviews", "{reviews}", "--bundle", "nowhere", "--store", "lmdb:x"],
            "holds no manifest.json",
        ),
        (["import", "{reviews}/reviews.parquet", "--out", "o", "--ray-address", "h:1"], "add --engine ray"),
        (
            ["import", "{reviews}/reviews.parquet", "--out", "o", "--workers", "3"],
            "workers = 3: to use workers, add --engine ray",
        ),
        (
            ["precompute", "--reviews", "r", "--bundle", "b", "--store", "lmdb:x", "--engine", "ray", "--threads", "2"],
            "threads = 2: Ray workers have --worker-cpus: leave it out",
        ),
        (["split", "--reviews", "{reviews}", "--out", "{reviews}"], "--out = '{reviews}': this is a directory"),
        (["split", "--reviews", "{reviews}", "--out", "."], "--out = '.': this is a directory; give the file to write"),
        (
            ["bench", "rates", "--reviews", "{reviews}", "--bundle", "b", "--out", "."],
            "--out = '.': this is a directory",
        ),
        (["bench", "accuracy", "--reviews", "{reviews}", "--out", "o", "--minutes", "nan"], "minutes = nan: use 0"),
        (
            ["bench", "states", "--reviews", "{reviews}", "--run", "a", "--run", "b", "--states", "c"],
            "--states = 'c': give one for each of 2 runs",
        ),
        (["split", "--reviews", "{reviews}", "--out", "reviews.parquet/s"], "reviews.parquet is a file"),
        (["import", "nothing.json", "--out", "o"], "no file at nothing.json"),
        (
            ["import", "nothing.json", "--out", "o", "--max-bad", "2"],
            "max_bad = 2: use a share between 0 and 1, such",
        ),
        (["import", "reviews.parquet", "--out", "reviews.parquet"], "reviews.parquet is a file, but a directory is to"),
        (["bench", "accuracy", "--reviews", "{reviews}", "--out", "o", "--seeds", "0,-1"], "seeds = '0,-1': use 0 to"),
        (["bench", "accuracy", "--reviews", "{reviews}", "--out", "o", "--seeds", "4294967296"], "use 0 to 4294967295"),
    ],
)
def test_an_expected_error_is_one_line_and_no_traceback(
    reviews: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(reviews)
    with pytest.raises(SystemExit) as ended:
        main([argument.format(reviews=reviews) for argument in arguments])
    assert ended.value.code == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("ubert: ")
    assert message.format(reviews=reviews) in line


@pytest.mark.parametrize(
    ("arguments", "where", "remedy"),
    [
        (["import", "r.json", "--out", "o"], "import_reviews.import_reviews", "continues where it stopped"),
        (["split", "--reviews", "r", "--out", "o"], "split.load_reviews", "begins anew"),
        (["bench", "accuracy", "--reviews", "r", "--out", "o"], "bench_accuracy.load_reviews", "continues where it"),
        (
            ["bench", "rates", "--reviews", "r", "--bundle", "b", "--out", "o"],
            "bench_rates.load_reviews",
            "begins anew",
        ),
    ],
)
def test_an_interrupted_command_says_in_one_line_whether_it_continues(
    arguments: list[str],
    where: str,
    remedy: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"ubert_training.commands.{where}", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 130
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("ubert: interrupted; the same command ")
    assert remedy in line


@pytest.mark.parametrize("arguments", [["pretrain", "--split", "s", "--out", "o"], ["bench", "accuracy", "--out", "o"]])
def test_an_error_line_comes_without_warnings_of_libraries(arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ubert_training.cli", *arguments, "--reviews", "nowhere"],
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env={**os.environ, "PYTHONWARNINGS": "default"},
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("ubert: no review table at nowhere")


def parameters(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str, list[str]]]:
    """Command, name and flags of every parameter."""
    subcommands = getattr(command, "commands", {})
    for name, subcommand in subcommands.items():
        yield from parameters(subcommand, (*path, name))
    if not subcommands:
        for parameter in command.params:
            yield " ".join(path), parameter.name, [flag for flag in parameter.opts if flag.startswith("--")]


UBERT: Any = typer.main.get_command(make_app(COMMANDS))


@pytest.mark.parametrize(("command", "name", "flags"), list(parameters(UBERT)))
def test_every_option_has_the_name_of_its_flag(command: str, name: str, flags: list[str]) -> None:
    """By that name it is set in a config file and in the environment."""
    assert not flags or f"--{name.replace('_', '-')}" in flags


@pytest.mark.parametrize("arguments", [["--help"], [], ["precomptue"], ["--config", "run.toml"]])
def test_help_and_usage_errors_import_no_heavy_library(arguments: list[str]) -> None:
    script = """
import sys
from ubert_training.cli import main
try:
    main(sys.argv[1:])
finally:
    heavy = {"torch", "transformers", "numpy", "duckdb", "pyarrow"} & set(sys.modules)
    print("heavy:", *heavy)
"""
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "heavy:"
    output = done.stdout + done.stderr
    assert "Traceback" not in output
    if arguments in ([], ["--help"]):
        assert all(f"\n  {name} " in output for name in COMMANDS)
    if arguments == ["precomptue"]:
        assert done.returncode == 2
        assert "No such command 'precomptue'. Did you mean 'precompute'" in output


def test_a_library_that_is_not_installed_is_named_with_the_extra_that_has_it() -> None:
    program = (
        "import sys; sys.modules['pyarrow'] = None; from ubert_training.cli import main; main(['import', '--help'])"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60)
    message = "ubert: pyarrow is not installed; pip install 'u-bert[train]', for the demo 'u-bert[demo]'\n"
    assert (done.returncode, done.stderr) == (2, message)


def test_importing_the_commands_imports_no_heavy_library() -> None:
    """So that wrong flags are reported before the seconds that torch takes."""
    script = """
import sys
from ubert_training.cli import COMMANDS, make_app
make_app(COMMANDS)
print("heavy:", *{"torch", "transformers", "accelerate", "sklearn", "matplotlib"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True, timeout=120)
    assert done.stdout == "heavy:\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_line_that_help_shows_for_a_command_is_the_first_of_its_own_help(name: str) -> None:
    assert UBERT.commands[name].help.splitlines()[0] == COMMANDS[name].help


def test_only_the_table_of_the_called_command_is_checked(tmp_path: Path) -> None:
    """The name of a config file may be that of a command, too."""
    (tmp_path / "plan").write_text("[synth]\nusers = 'ignored'\n[split]\nsede = 1\n")
    with pytest.raises(SystemExit) as ended:
        main(["--config", str(tmp_path / "plan"), "plan", "--users", "1", "--items", "1", "--reviews", "1", "--json"])
    assert ended.value.code == 0


def test_options_are_read_from_file_and_environment_by_their_flags(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("[plan]\nrps = 2000\njson = true\n")
    plan = ["plan", "--users", "100", "--items", "10", "--reviews", "1000"]
    runner, app = CliRunner(), make_app(["plan"])
    from_file = runner.invoke(app, ["--config", str(tmp_path / "run.toml"), *plan], catch_exceptions=False)
    from_environment = runner.invoke(app, plan, env={"UBERT_PLAN_RPS": "2000", "UBERT_PLAN_JSON": "1"})
    for result in (from_file, from_environment):
        assert json.loads(result.stdout)["demand"]["requests_per_s"] == 2000


FROZEN = ("--mode", "end-to-end", "--trainable-layers", "0")
PROJECTION = ("--projection-learning-rate", "0.5")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["split", "--folds", "3"], "--folds = 3: give it with --kind folds, or leave it out"),
        (["split", "--kind", "time", "--folds", "3"], "--folds = 3"),
        (["split", "--kind", "time", "--seed", "1"], "--seed = 1: a split by time draws nothing"),
        (["finetune", "--trainable-layers", "2"], "--trainable-layers = 2: cached states"),
        (["finetune", "--encoder-learning-rate", "1e-5"], "--encoder-learning-rate = 1e-05: cached states"),
        (["finetune", "--mode", "end-to-end", "--states", "s"], "--states = 's': end-to-end has no cached states"),
        (["finetune", *FROZEN, "--encoder-learning-rate", "1"], "--encoder-learning-rate = 1.0: BERT"),
        (["finetune", "--state-dim", "0", *PROJECTION], "--projection-learning-rate = 0.5: the states"),
        (["finetune", "--preset", "paper", *PROJECTION], "--projection-learning-rate = 0.5: the states"),
        (["pretrain", "--masking", "none", "--lexicon", "w"], "--lexicon = 'w': opinion masking alone"),
        (["pretrain", "--masking", "random", "--lexicon", "w"], "--lexicon = 'w': opinion masking alone"),
        (["pretrain", *FROZEN[2:], "--encoder-learning-rate", "1"], "--encoder-learning-rate = 1.0: BERT"),
        (["bench", "accuracy", "--split", "time", "--folds", "3"], "--folds = 3: a split by time has none"),
        (["bench", "accuracy", "--split", "time", "--folds-seed", "1"], "--folds-seed = 1: a split by time has none"),
        (["bench", "accuracy", "--recipe", "r", "--preset", "tiny"], "--preset = 'tiny': the recipe takes its place"),
        (["bench", "accuracy", "--recipe", "{recipe}", "--corpus", "both"], "--corpus = 'both': the recipe has no pre"),
        (["bench", "accuracy", "--recipe", "{recipe}", "--pretrain-epochs", "2"], "--pretrain-epochs = 2: the recipe"),
    ],
)
def test_an_inapplicable_flag_is_refused_by_name_with_a_remedy(reviews: Path, flags: list[str], message: str) -> None:
    recipe = reviews / "recipe.json"
    recipe.write_text(json.dumps(Recipe.of_preset("tiny", RatingScale()).varied(pretrained=False).to_json()))
    given = [*(flag.format(recipe=recipe) for flag in flags), "--reviews", str(reviews), "--out", str(reviews / "o")]
    if flags[0] in ("pretrain", "finetune"):
        table = small_table()
        random_split(table, np.arange(len(table)), seed=0).save(reviews / "split.parquet", table)
        given += ["--split", str(reviews / "split.parquet")]
    result = CliRunner().invoke(make_app([flags[0]]), given)
    assert isinstance(result.exception, ConfigError)
    assert message in str(result.exception)
    assert not (reviews / "o").exists()


def test_finetune_takes_the_preset_of_the_pre_trained_model_and_refuses_another(reviews: Path) -> None:
    table, app, runner = small_table(), make_app(["pretrain", "finetune"]), CliRunner()
    random_split(table, np.arange(len(table)), seed=0).save(reviews / "split.parquet", table)
    given = ["--reviews", str(reviews), "--split", str(reviews / "split.parquet"), "--device", "cpu", "--epochs", "1"]
    pretrained = runner.invoke(app, ["pretrain", *given, "--preset", "tiny", "--out", str(reviews / "pretrained")])
    assert pretrained.exit_code == 0, pretrained.output
    finetune = ["finetune", *given, "--pretrained", str(reviews / "pretrained"), "--out", str(reviews / "run")]
    refused = runner.invoke(app, [*finetune, "--preset", "minilm"])
    assert isinstance(refused.exception, ConfigError)
    assert "--preset = 'minilm'" in str(refused.exception)
    assert "was pre-trained with 'tiny'; leave the flag out" in str(refused.exception)
    assert not (reviews / "run").exists()
    for flags in (["--preset", "tiny"], []):
        done = runner.invoke(app, [*finetune, *flags])
        assert done.exit_code == 0
        assert re.search(r"validation MSE before training \d.\d+, after each epoch \d.\d+; \d+% of the", done.output)
    assert json.loads((reviews / "run" / "config.json").read_text())["preset"] == "tiny"


@pytest.mark.parametrize("target", ["'domain-0'", "['domain-0']"])
def test_a_repeatable_option_is_one_value_or_a_list_in_a_file(reviews: Path, target: str) -> None:
    (reviews / "run.toml").write_text(f"[split]\ntarget = {target}\n")
    split = ["split", "--reviews", str(reviews), "--out", str(reviews / "split.parquet")]
    done = CliRunner().invoke(make_app(["split"]), ["--config", str(reviews / "run.toml"), *split])
    assert done.exit_code == 0, done.output
    rows = Split.load(reviews / "split.parquet", small_table()).rows
    assert rows.tolist() == small_table().rows_of_domains("domain-0").tolist()


def test_an_inapplicable_option_in_a_file_is_refused(reviews: Path) -> None:
    (reviews / "run.toml").write_text("[split]\nkind = 'time'\nseed = 0\n")
    split = ["split", "--reviews", str(reviews), "--out", str(reviews / "o")]
    result = CliRunner().invoke(make_app(["split"]), ["--config", str(reviews / "run.toml"), *split])
    assert "--seed = 0: a split by time draws nothing" in str(result.exception)


def test_a_stage_refuses_an_out_that_is_a_file(reviews: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = small_table()
    random_split(table, np.arange(len(table)), seed=0).save(reviews / "split.parquet", table)
    given = ["--reviews", str(reviews), "--split", str(reviews / "split.parquet"), "--preset", "tiny"]
    with pytest.raises(SystemExit) as ended:
        main(["finetune", *given, "--device", "cpu", "--out", str(reviews / "reviews.parquet")])
    assert ended.value.code == 2
    assert f"ubert: {reviews / 'reviews.parquet'} is a file, but a directory is to" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["demo", "finetune", "pretrain", "tune"])
def test_a_seed_that_a_library_refuses_after_the_training_is_refused_before(command: str) -> None:
    done = CliRunner().invoke(make_app([command]), [command, "--seed", "20241130123456"])
    assert done.exit_code == 2
    assert "Invalid value for '--seed': Input should be less than or equal to 4294967295" in done.output


def test_a_refused_setting_is_shown_with_the_variable_or_the_file_that_it_comes_from(tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text("[finetune]\nepochs = 'x'\n[bench.accuracy]\nfolds = 'y'\n")
    for arguments, environment, shown in (
        (["finetune"], {"UBERT_FINETUNE_EPOCHS": "abc"}, "'--epochs': .*: UBERT_FINETUNE_EPOCHS = 'abc'"),
        (["--config", str(config), "finetune"], {}, "'--epochs': .*: epochs = 'x' in .*run.toml"),
        (["bench", "accuracy"], {"UBERT_BENCH_ACCURACY_FOLDS": "z"}, "'--folds': .*: UBERT_BENCH_ACCURACY_FOLDS = 'z'"),
        (["--config", str(config), "bench", "accuracy"], {}, "'--folds': .*: folds = 'y' in .*run.toml"),
        (["finetune", "--epochs", "abc"], {}, "'--epochs': .* as an integer$"),
    ):
        app = make_app([arguments[-2] if arguments[-1] == "accuracy" else "finetune"])
        needed = ["--reviews", "r", "--out", "o", *([] if arguments[-1] == "accuracy" else ["--split", "s"])]
        done = CliRunner().invoke(app, [*arguments, *needed], env=environment)
        assert done.exit_code == 2
        assert re.search(shown, done.output.strip()), done.output


@pytest.mark.parametrize("command", ["split", "synth"])
def test_a_negative_seed_is_refused(command: str) -> None:
    done = CliRunner().invoke(make_app([command]), [command, "--reviews", "2", "--out", "o", "--seed", "-1"])
    assert done.exit_code == 2
    assert "Invalid value for '--seed': Input should be greater than or equal to 0" in done.output


def test_split_writes_folds_and_a_split_by_time(reviews: Path) -> None:
    runner = CliRunner()
    base = ["split", "--reviews", str(reviews), "--out", str(reviews / "split.parquet")]
    folds = ["--kind", "folds", "--folds", "3", "--target", "domain-0"]
    assert runner.invoke(make_app(["split"]), [*base, *folds]).exit_code == 0
    tests = [Split.load(reviews / f"split-{fold}.parquet", small_table()).test for fold in range(3)]
    covered = np.sort(np.concatenate(tests)).tolist()
    assert covered == small_table().rows_of_domains("domain-0").tolist()
    assert runner.invoke(make_app(["split"]), [*base, "--kind", "time"]).exit_code == 0
    assert Split.load(reviews / "split.parquet", small_table()).kind == "time"


def test_a_split_is_replaced_by_another_only_with_force(reviews: Path) -> None:
    out = reviews / "split.parquet"

    def split(*flags: str) -> Result:
        return CliRunner().invoke(make_app(["split"]), ["split", "--reviews", str(reviews), "--out", str(out), *flags])

    assert split("--seed", "1").exit_code == 0
    assert split("--seed", "1").exit_code == 0
    for other in (["--seed", "2"], ["--kind", "time"]):
        assert "holds another split, or another file; give a new --out" in str(split(*other).exception)
        assert seed_of(reviews) == 1
    assert split("--seed", "2", "--force").exit_code == 0
    assert seed_of(reviews) == 2
    out.write_text("not a split")
    assert split().exit_code != 0
    assert out.read_text() == "not a split"


@pytest.mark.parametrize(
    "command",
    [
        ["split", "--out", "reviews.parquet"],
        ["pretrain", "--split", "split.parquet", "--out", "."],
        ["finetune", "--split", "split.parquet", "--out", "."],
        ["tune", "--split", "split.parquet", "--out", "."],
    ],
    ids=lambda command: command[0],
)
def test_no_command_replaces_what_it_reads_even_with_force(reviews: Path, command: list[str]) -> None:
    random_split(small_table(), np.arange(len(small_table())), seed=1).save(reviews / "split.parquet", small_table())
    (reviews / "stage.json").write_text(
        '{"kind": "x", "fingerprint": "", "finished": true, "inputs": {}, "summary": {}}'
    )
    before = {path.name: path.read_bytes() for path in reviews.iterdir() if path.is_file()}
    paths = [str(reviews / part) if part.endswith((".parquet", ".")) else part for part in command[1:]]
    flags = ["--reviews", str(reviews), *paths, "--force", *(["--preset", "tiny"] if command[0] != "split" else [])]
    done = CliRunner().invoke(make_app([command[0]]), [command[0], *flags])
    assert "which this command reads, would be replaced: give another --out" in str(done.exception)
    assert {path.name: path.read_bytes() for path in reviews.iterdir() if path.is_file()} == before


def test_no_fold_is_written_if_one_would_replace_another_file(reviews: Path) -> None:
    folds = ["split", "--reviews", str(reviews), "--out", str(reviews / "split.parquet"), "--kind", "folds"]
    (reviews / "split-1.parquet").write_text("another")
    assert "split-1.parquet holds another" in str(CliRunner().invoke(make_app(["split"]), folds).exception)
    assert not (reviews / "split-0.parquet").exists()


def test_a_long_path_with_brackets_is_printed_unchanged(reviews: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = reviews / "[bold]" / ("of" * 80) / "split.parquet"
    with pytest.raises(SystemExit, match="0"):
        main(["split", "--reviews", str(reviews), "--out", str(out)])
    assert capsys.readouterr().out.startswith(f"{out}: ")
