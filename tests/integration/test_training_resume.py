"""Law 8: a training stage killed with SIGKILL continues to the same weights."""

import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from support.training_stage import SAVES_NOTHING, TinyCorpus, on_one_process, run_here, stop_after_a_checkpoint
from ubert_model.bundle import WEIGHTS
from ubert_model.running.folder_lock import try_lock
from ubert_training.cli import main
from ubert_training.optimization.loop import CHECKPOINT

FLAGS = {
    "pretrain": ["--epochs", "6", "--batch-size", "8"],
    "finetune": ["--epochs", "12", "--batch-size", "4"],
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> TinyCorpus:
    return TinyCorpus.write(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def unkilled(corpus: TinyCorpus, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directory of a stage that ran without a stop, and saved nothing on the way."""

    @cache
    def directory_of(name: str) -> Path:
        directory = tmp_path_factory.mktemp("whole") / "run"
        run_here(corpus.arguments(name, directory, *FLAGS[name], *SAVES_NOTHING))
        return directory

    return directory_of


@pytest.mark.parametrize("name", FLAGS)
def test_a_killed_stage_ends_with_the_weights_of_an_unkilled_one(
    name: str, corpus: TinyCorpus, unkilled: Callable[[str], Path], tmp_path: Path
) -> None:
    killed = tmp_path / "run"
    arguments = corpus.arguments(name, killed, *FLAGS[name])
    stop_after_a_checkpoint(on_one_process(arguments), killed / CHECKPOINT, signal.SIGKILL)
    assert not (killed / WEIGHTS).exists()
    run_here(arguments)
    expected, found = load_file(unkilled(name) / WEIGHTS), load_file(killed / WEIGHTS)
    assert expected.keys() == found.keys()
    for weight_name, weight in expected.items():
        np.testing.assert_allclose(found[weight_name], weight, atol=1e-5, err_msg=weight_name)


@pytest.mark.parametrize("name", FLAGS)
def test_a_finished_stage_started_again_only_removes_what_a_kill_at_the_very_end_left(
    name: str, corpus: TinyCorpus, unkilled: Callable[[str], Path]
) -> None:
    directory = unkilled(name)
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
    (directory / CHECKPOINT).write_bytes(b"of the run that finished")
    run_here(corpus.arguments(name, directory, *FLAGS[name], *SAVES_NOTHING))
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*")} == before


@pytest.mark.parametrize("name", FLAGS)
def test_a_second_run_in_a_directory_at_work_is_refused_in_one_line(
    name: str, corpus: TinyCorpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    with try_lock(directory), pytest.raises(SystemExit) as ended:
        main(corpus.arguments(name, directory, *FLAGS[name], "--force"))
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"another run is at work in {directory}" in line
    assert not list(directory.iterdir())
