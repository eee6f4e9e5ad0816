"""`ubert export` on a full disk, and of a damaged run."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from support.full_disk import full_disk
from support.training_stage import NO_CHECKPOINTS, TinyCorpus, run_in_process
from ubert_model.bundle import CODEBOOKS, TEXT_READER, WEIGHTS
from ubert_model.errors import InputError
from ubert_training.cli import main
from ubert_training.evaluation.evaluate import EVALUATION
from ubert_training.export import make_bundle
from ubert_training.export.make_bundle import export_bundle
from ubert_training.finetuning.rating_parts import RATING
from ubert_training.running.stage import read_stage


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("trained")
    corpus = TinyCorpus.write(directory)
    run_in_process(corpus.arguments("finetune", directory / "run", *NO_CHECKPOINTS, "--epochs", "1", "--device", "cpu"))
    evaluation = {"run": read_stage(directory / "run")["fingerprint"]}
    (directory / "run" / EVALUATION).write_text(json.dumps(evaluation))
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


@pytest.mark.parametrize(
    ("name", "remedy"),
    [(EVALUATION, "`ubert evaluate` again"), (RATING, "its step again"), (TEXT_READER, "its step again")],
)
@pytest.mark.parametrize("content", ["", "[" * 100_000], ids=["empty", "nested"])
def test_a_damaged_file_is_refused_by_its_name(run: Path, name: str, remedy: str, content: str, tmp_path: Path) -> None:
    damaged = shutil.copytree(run, tmp_path / "run") / name
    damaged.write_text(content)
    with pytest.raises(InputError, match=rf"{damaged} cannot be read \(.+\); run {remedy}"):
        export_bundle(damaged.parent, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_run_without_its_text_reader_is_refused(run: Path, tmp_path: Path) -> None:
    missing = shutil.copytree(run, tmp_path / "run") / TEXT_READER
    missing.unlink()
    with pytest.raises(InputError, match=f"{missing} cannot be read .*; run its step again with a new directory"):
        export_bundle(missing.parent, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("evaluation", ["{}", '{"run": "0123456789abcdef"}'])
def test_the_evaluation_of_another_run_is_not_exported(run: Path, evaluation: str, tmp_path: Path) -> None:
    """One that a long `ubert evaluate` wrote while `ubert finetune --force` replaced the run."""
    foreign = shutil.copytree(run, tmp_path / "run") / EVALUATION
    foreign.write_text(evaluation)
    with pytest.raises(InputError, match=f"{foreign} is of another run; run `ubert evaluate` again"):
        export_bundle(foreign.parent, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_run_without_codebooks_is_refused_with_the_step_that_makes_them(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / CODEBOOKS).unlink()
    with pytest.raises(InputError, match=f"{copy} has no {CODEBOOKS}.*; fine-tune again with a new directory"):
        export_bundle(copy, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_runs_that_differ_in_one_weight_of_the_encoder_have_different_namespaces(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for graph in ("export_encoder", "export_scorer", "export_explainer"):  # which take half a minute
        monkeypatch.setattr(make_bundle, graph, lambda model, path: path.write_bytes(b""))
    other = shutil.copytree(run, tmp_path / "run")
    weights = load_file(other / WEIGHTS)
    weights["review_encoder.bert.encoder.layer.0.output.dense.bias"][0] += 1e-3
    save_file(weights, other / WEIGHTS)
    bundles = [export_bundle(each, tmp_path / f"bundle-{number}") for number, each in enumerate((run, run, other))]
    one, same, different = (bundle.manifest.namespace("fp32").version for bundle in bundles)
    assert one == same != different
