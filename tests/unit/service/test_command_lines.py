"""The service's command lines: what their help shows, and a missing argument."""

import pytest
import typer
from typer.testing import CliRunner

from ubert_service.commands import key as key_command
from ubert_service.commands import promote as promote_command
from ubert_service.commands import score as score_command
from ubert_service.commands import serve as serve_command


@pytest.mark.parametrize("app", [serve_command.app, score_command.app])
def test_help_shows_every_kind_of_store_url_in_full_at_80_columns(app: typer.Typer) -> None:
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80"}).output
    for kind in ("redis://HOST:PORT/DB", "redis+cluster://NODE,NODE", "redis+sentinel://SENTINEL,SENTINEL/NAME"):
        assert kind in shown


@pytest.mark.parametrize("app", [serve_command.app, score_command.app, key_command.app, promote_command.app])
def test_a_missing_argument_is_named_on_the_last_line(app: typer.Typer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UBERT_BUNDLE", "UBERT_STORE"):
        monkeypatch.delenv(name, raising=False)
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 2
    assert result.output.splitlines()[-1].startswith("Error: Missing ")
