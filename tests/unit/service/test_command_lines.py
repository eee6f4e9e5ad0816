"""The service's command lines: help that a narrow terminal cuts nothing off, and one line for an expected error."""

import sys

import pytest
import typer
from typer.testing import CliRunner

from ubert_service.commands import key as key_command
from ubert_service.commands import promote as promote_command
from ubert_service.commands import score as score_command
from ubert_service.commands import serve as serve_command


@pytest.mark.parametrize("app", [serve_command.app, score_command.app])
def test_help_spells_every_kind_of_store_out(app: typer.Typer) -> None:
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80"}).output
    for kind in ("redis://HOST:PORT/DB", "redis+cluster://NODE,NODE", "redis+sentinel://SENTINEL,SENTINEL/NAME"):
        assert kind in shown


@pytest.mark.parametrize("app", [serve_command.app, score_command.app, key_command.app, promote_command.app])
def test_what_is_left_out_is_named_in_one_line(app: typer.Typer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UBERT_BUNDLE", "UBERT_STORE"):
        monkeypatch.delenv(name, raising=False)
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 2
    assert result.output.splitlines()[-1].startswith("Error: Missing ")


def test_a_key_that_cannot_be_made_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ubert-serve-key", "page", "--scope", "reed"])
    with pytest.raises(SystemExit) as ended:
        key_command.main()
    assert ended.value.code == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert shown.err.startswith("ubert-serve-key: key 'page': ")
