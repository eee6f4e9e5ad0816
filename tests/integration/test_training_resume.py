"""Law 8: a training stage that is killed with SIGKILL and run again ends with the same weights."""

import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from support.training_stage import (
    NO_CHECKPOINTS,
    TinyCorpus,
    assert_same_weights,
    on_one_process,
    run_in_process,
    stop_after_a_checkpoint,
)
from ubert_model.bundle import WEIGHTS
from ubert_model.running.folder_lock import try_lock
from ubert_training.cli import main
from ubert_training.optimization.loop import CHECKPOINT

pytestmark = pytest.mark.timeout(900)  # they train, in processes that may share the cores with others
FLAGS = {
    "pretrain": ["--epochs", "6", "--batch-size", "8"],
    "finetune": ["--epochs", "12", "--batch-size", "4"],
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> TinyCorpus:
    return TinyCorpus.write(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def uninterrupted(corpus: TinyCorpus, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directory of a stage that ran without interruption, and saved no checkpoint."""

    @cache
    def directory_of(name: str) -> Path:
        directory = tmp_path_factory.mktemp("uninterrupted") / "run"
        run_in_process(corpus.arguments(name, directory, *FLAGS[name], *NO_CHECKPOINTS))
        return directory

    return directory_of


@pytest.mark.parametrize("name", FLAGS)
def test_a_killed_stage_resumes_to_the_weights_of_an_uninterrupted_one(
    name: str, corpus: TinyCorpus, uninterrupted: Callable[[str], Path], tmp_path: Path
) -> None:
    killed = tmp_path / "run"
    arguments = corpus.arguments(name, killed, *FLAGS[name])
    stop_after_a_checkpoint(on_one_process(arguments), killed / CHECKPOINT, signal.SIGKILL)
    assert not (killed / WEIGHTS).exists()
    run_in_process([*arguments, *NO_CHECKPOINTS])
    assert_same_weights(killed, uninterrupted(name))


@pytest.mark.parametrize("name", FLAGS)
def test_a_finished_stage_run_again_only_removes_a_leftover_checkpoint(
    name: str, corpus: TinyCorpus, uninterrupted: Callable[[str], Path]
) -> None:
    directory = uninterrupted(name)
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
    (directory / CHECKPOINT).write_bytes(b"as if the run had been killed before it removed it")
    run_in_process(corpus.arguments(name, directory, *FLAGS[name], *NO_CHECKPOINTS))
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*")} == before


@pytest.mark.parametrize("name", FLAGS)
def test_a_second_run_in_the_directory_of_a_running_one_is_refused_in_one_line(
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
