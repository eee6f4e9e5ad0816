"""A stage's directory: continued, left alone or refused, never mixed."""

import shutil
from pathlib import Path

import pytest
from accelerate import Accelerator

from ubert_model.errors import ConfigError, InputError
from ubert_training.optimization.loop import LoopOptions
from ubert_training.running.stage import STAGE_FILE, Stage, digest_of, finished_stage, read_stage


def test_a_finished_stage_is_left_alone_and_an_unfinished_one_continues(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "run", "finetune", {"seed": 1})
    assert not stage.open()
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"half way")
    assert not Stage(tmp_path / "run", "finetune", {"seed": 1}).open()
    assert (tmp_path / "run" / "checkpoint.pt").exists()
    stage.finish({"pairs": 3})
    assert Stage(tmp_path / "run", "finetune", {"seed": 1}).open()
    assert finished_stage(tmp_path / "run", "finetune")["summary"] == {"pairs": 3}


def test_another_configuration_is_refused_by_name_and_discarded_by_force(tmp_path: Path) -> None:
    Stage(tmp_path / "run", "finetune", {"seed": 1, "mode": "cached"}).open()
    other = Stage(tmp_path / "run", "finetune", {"seed": 2, "mode": "cached"})
    with pytest.raises(ConfigError, match=r"differs in seed.*--force"):
        other.open()
    assert not other.open(force=True)
    assert read_stage(tmp_path / "run")["inputs"]["seed"] == 2


def test_the_same_inputs_in_any_order_are_one_configuration_and_of_another_kind_another(tmp_path: Path) -> None:
    Stage(tmp_path / "run", "finetune", {"seed": 1, "mode": "cached"}).open()
    assert not Stage(tmp_path / "run", "finetune", {"mode": "cached", "seed": 1}).open()
    with pytest.raises(ConfigError, match=r"holds the finetune of another configuration \(it differs in kind\)"):
        Stage(tmp_path / "run", "pretrain", {"seed": 1, "mode": "cached"}).open()


def test_what_is_no_part_of_the_result_may_change_between_two_starts(tmp_path: Path) -> None:
    def stage(seed: int = 1, *, device: str, every: float) -> Stage:
        loop = LoopOptions(epochs=1, batch_size=2, learning_rate=0.1, seed=seed, checkpoint_seconds=every)
        return Stage(tmp_path / "run", "finetune", {"options": {"device": device, "loop": loop}, "mode": "cached"})

    assert not stage(device="auto", every=30.0).open()
    stage(device="auto", every=30.0).finish({})
    assert stage(device="cpu", every=1.0).open(), "it is finished whatever it was computed on"
    with pytest.raises(ConfigError, match=r"\(it differs in options\)"):
        stage(2, device="cpu", every=1.0).open()
    inputs = {"options": {"device": "cpu", "loop": LoopOptions(epochs=1, batch_size=2, learning_rate=0.1, seed=1)}}
    with pytest.raises(ConfigError, match=r"\(it differs in mode\)"):
        Stage(tmp_path / "run", "finetune", inputs).open()


def test_a_stage_of_a_version_that_told_results_apart_otherwise_is_refused_for_that(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "run", "finetune", {"seed": 1})
    stage.open()
    path = tmp_path / "run" / STAGE_FILE
    path.write_text(path.read_text().replace(stage.fingerprint, "0123456789abcdef"))
    with pytest.raises(ConfigError, match=r"\(it differs in the version of this program\)"):
        stage.open()


def test_names_that_are_cut_otherwise_have_another_digest() -> None:
    assert len({digest_of(names) for names in (["ab", "c"], ["a", "bc"], ["abc"], ["c", "ab"])}) == 4


def test_a_directory_of_somebody_else_is_never_discarded(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="give a new directory"):
        Stage(tmp_path, "finetune", {}).open(force=True)
    assert (tmp_path / "thesis.tex").exists()


class Killed(BaseException):
    """What no handler of an error catches."""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_discard_that_was_killed_is_nobodys_result_and_can_be_repeated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, moment: str
) -> None:
    run = tmp_path / "run"
    old, new = (Stage(run, "finetune", {"seed": seed}) for seed in (1, 2))
    old.open()
    (run / "tensorboard").mkdir()
    (run / "tensorboard" / "events").write_text("losses")
    (run / "model.safetensors").write_text("weights")
    old.finish({})

    def dying(path: Path) -> None:
        """As ``shutil.rmtree`` in a process that is killed at its beginning or its end."""
        if moment == "after":
            (path / STAGE_FILE).unlink(missing_ok=True)  # the first that it comes across, if it is given all
            for entry in path.iterdir():
                entry.unlink()
            path.rmdir()
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", dying)
        with pytest.raises(Killed):
            new.open(force=True)
    for stage in (old, new):
        with pytest.raises(ConfigError, match=r"is half discarded .* --force to continue"):
            stage.open()
    assert not new.open(force=True)
    assert [path.name for path in run.iterdir()] == [STAGE_FILE]


def test_a_first_write_that_was_killed_leaves_a_directory_like_a_new_one(tmp_path: Path) -> None:
    (tmp_path / f".{STAGE_FILE}.123.partial").write_text("{")
    assert not Stage(tmp_path, "finetune", {}).open()


def test_two_runs_are_never_at_work_in_one_directory(tmp_path: Path) -> None:
    alone = Accelerator(cpu=True)
    first, other = (Stage(tmp_path / "run", "finetune", {"seed": seed}) for seed in (1, 2))
    with first.held(alone) as finished:
        assert not finished
        (tmp_path / "run" / "best.safetensors").write_text("weights")
        for second, force in ((first, False), (other, False), (other, True)):
            with (
                pytest.raises(InputError, match=r"another run is at work in .*: wait for it"),
                second.held(alone, force=force),
            ):
                pass
        first.finish({})
    assert (tmp_path / "run" / "best.safetensors").exists()
    with first.held(alone) as finished, first.held(alone) as finished_too:
        assert finished
        assert finished_too
    with other.held(alone, force=True) as finished, pytest.raises(InputError, match="another run"), first.held(alone):
        pass


def test_a_run_that_failed_leaves_its_directory_to_the_next(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "run", "finetune", {"seed": 1})
    with pytest.raises(Killed), stage.held(Accelerator(cpu=True)):
        raise Killed
    with stage.held(Accelerator(cpu=True)) as finished:
        assert not finished


def test_a_later_stage_builds_only_on_a_finished_one_of_the_right_kind(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no stage\.json"):
        finished_stage(tmp_path, "pretrain")
    stage = Stage(tmp_path / "run", "pretrain", {})
    stage.open()
    with pytest.raises(InputError, match="unfinished; run `ubert pretrain`"):
        finished_stage(tmp_path / "run", "pretrain")
    stage.finish({})
    with pytest.raises(InputError, match="is a pretrain"):
        finished_stage(tmp_path / "run", "finetune")
