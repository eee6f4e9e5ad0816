"""`ubert reproduce`: printed commands that are valid and run, and the numbers of the paper."""

import gzip
import json
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from support.small_corpus import small_table
from ubert_training.accuracy.reproduction import EXPERIMENTS, METHODS, PLACEHOLDER, commands
from ubert_training.cli import main, make_app
from ubert_training.commands.options import model_config

TABLE = small_table()
APP = typer.main.get_command(make_app(["import", "split", "pretrain", "finetune", "evaluate", "reproduce"]))


def invoked(*arguments: str) -> str:
    done = CliRunner().invoke(make_app(["reproduce"]), ["reproduce", *arguments], env={"COLUMNS": "200"})
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_printed_command_is_valid(name: str) -> None:
    printed = [line for line in invoked(name).splitlines() if line.startswith("ubert ")]
    steps = [shlex.split(line)[1:] for line in printed]
    assert steps == commands(EXPERIMENTS[name], [PLACEHOLDER], Path(f"reproduce-{name}"))
    for step in steps:
        APP.commands[step[0]].make_context(step[0], step[1:])  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("preset", ["paper", "minilm"])
def test_the_commands_of_every_preset_give_a_valid_configuration(name: str, preset: str) -> None:
    for step in commands(EXPERIMENTS[name], [PLACEHOLDER], Path("out"), preset):
        if step[0] in ("pretrain", "finetune"):
            given = APP.commands[step[0]].make_context(step[0], step[1:]).params  # type: ignore[attr-defined]
            assert model_config(preset, TABLE, max_length=given["max_length"]).preset == preset


def test_the_papers_numbers_are_shown_beside_an_empty_column() -> None:
    rows = [line.split("│") for line in invoked("office").splitlines() if "│" in line]
    cells = {row[1].strip(): (row[2].strip(), row[3].strip()) for row in rows}
    assert cells["U-BERT"] == ("0.6774", "")
    assert cells["PMF"] == ("0.8742", "")
    assert set(METHODS) <= set(cells)


def test_every_row_of_the_paper_is_complete_and_u_bert_is_the_best_in_it() -> None:
    papers = [experiment.paper for experiment in EXPERIMENTS.values() if experiment.paper]
    assert len(papers) == 6
    for row in papers:
        assert len(row) == len(METHODS)
        assert min(row) == row[METHODS.index("U-BERT")]


def test_a_wrong_number_of_files_is_refused_with_the_names_of_those_needed() -> None:
    done = CliRunner().invoke(make_app(["reproduce"]), ["reproduce", "office", "--reviews", "a", "--reviews", "b"])
    assert "reviews_Office_Products_5.json.gz, reviews_Books_5.json.gz" in str(done.exception)


def test_an_interrupted_step_ends_the_run_with_one_message_of_the_command_that_the_user_gave(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ubert_training.commands.split.load_reviews", interrupted)
    steps = [["split", "--reviews", "r", "--out", "o"], ["plan", "--users", "1", "--items", "1", "--reviews", "1"]]
    monkeypatch.setattr("ubert_training.commands.reproduce.commands", lambda *_: steps)
    with pytest.raises(SystemExit) as ended:
        main(["reproduce", "office", "--reviews", "r", "--run"])
    assert ended.value.code == 130
    printed = capfd.readouterr()
    assert "ubert split" in printed.out
    assert "ubert plan" not in printed.out
    assert printed.err == "ubert: interrupted; the same command continues where it stopped\n"


def test_the_commands_run_and_fill_our_column(tmp_path: Path) -> None:
    table = small_table(users=40)
    lines = [
        json.dumps(
            {
                "reviewerID": table.user[row],
                "asin": table.item[row],
                "overall": float(table.rating[row]),
                "reviewText": table.text[row],
                "summary": "",
                "unixReviewTime": int(table.timestamp[row]),
            }
        )
        for row in range(len(table))
    ]
    with gzip.open(tmp_path / "reviews_Musical_Instruments_5.json.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    arguments = ["music-instruments", "--reviews", str(tmp_path), "--out", str(tmp_path / "out"), "--preset", "tiny"]
    output = invoked(*arguments, "--run")
    assert (tmp_path / "out" / "finetuned" / "evaluation.json").is_file()
    row = next(line for line in output.splitlines()[::-1] if "U-BERT P−" in line)
    assert float(row.split("│")[3]) > 0
    assert row in invoked(*arguments).splitlines()
