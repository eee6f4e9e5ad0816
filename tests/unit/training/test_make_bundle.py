"""`ubert export` on a full disk."""

from pathlib import Path

import pytest

from support.full_disk import full_disk
from support.training_stage import NO_CHECKPOINTS, TinyCorpus, run_in_process
from ubert_training.cli import main
from ubert_training.evaluation.evaluate import EVALUATION
from ubert_training.export import make_bundle


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("trained")
    corpus = TinyCorpus.write(directory)
    run_in_process(corpus.arguments("finetune", directory / "run", *NO_CHECKPOINTS, "--epochs", "1", "--device", "cpu"))
    (directory / "run" / EVALUATION).write_text("{}")
    return directory / "run"


@pytest.mark.parametrize("writer", ["save_file", "export_encoder"])
def test_a_full_disk_is_a_one_line_error_that_names_the_bundle_and_leaves_nothing(
    run: Path, writer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Writing the weights fails in safetensors, writing a graph in the operating system."""
    write = getattr(make_bundle, writer)

    def write_to_full_disk(model: object, path: Path) -> None:
        with full_disk(10):
            write(model, path)

    monkeypatch.setattr(make_bundle, writer, write_to_full_disk)
    with pytest.raises(SystemExit) as ended:
        main(["export", "--run", str(run), "--out", str(tmp_path / "bundle")])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ubert: {tmp_path / 'bundle'} cannot be written (")
    assert line.endswith("make room, then run the same command again")
    assert not list(tmp_path.iterdir())
