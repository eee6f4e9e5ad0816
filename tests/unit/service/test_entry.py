"""A command whose extra is not installed says in one line which one it is."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("command", "lacking", "told"),
    [
        ("serve", "fastapi", "ubert-serve: fastapi is not installed; pip install 'u-bert[serve]'"),
        ("key", "pydantic", "ubert-serve-key: pydantic is not installed; pip install 'u-bert[serve]'"),
        ("promote", "httpx", "ubert-serve-promote: httpx is not installed; pip install 'u-bert[client]'"),
        ("score", "numpy", "ubert-serve-score: numpy is not installed; pip install 'u-bert[score]'"),
        ("score", "pyarrow", "ubert-serve-score: pyarrow is not installed; pip install 'u-bert[score]'"),
    ],
)
def test_a_command_without_its_extra_names_it(command: str, lacking: str, told: str) -> None:
    program = f"import sys; sys.modules[{lacking!r}] = None; from ubert_service import entry; entry.{command}()"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", f"{told}\n")


@pytest.mark.parametrize("command", ["serve", "key", "promote", "score"])
def test_the_commands_start_where_their_extras_are(command: str) -> None:
    program = f"from ubert_service import entry; entry.{command}()"
    help_of = [sys.executable, "-c", program, "--help"]
    ended = subprocess.run(help_of, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0
    assert "Usage:" in ended.stdout
