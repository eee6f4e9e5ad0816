"""The directory of a stage: continued, left as it is, refused or discarded; never two configurations in one."""

import shutil
from pathlib import Path

import pytest
from accelerate import Accelerator

from support.killed_writes import Killed
from ubert_model.errors import ConfigError, InputError
from ubert_training.optimization.loop import LoopOptions
from ubert_training.running.digests import digest_of
from ubert_training.running.stage import STAGE_FILE, Stage, finished_stage, read_stage


def test_a_finished_stage_is_left_as_it_is_and_an_unfinished_one_continues(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "run", "finetune", {"seed": 1})
    assert not stage.open()
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"half way")
    assert not Stage(tmp_path / "run", "finetune", {"seed": 1}).open()
    assert (tmp_path / "run" / "checkpoint.pt").exists()
    stage.finish({"pairs": 3})
    assert Stage(tmp_path / "run", "finetune", {"seed": 1}).open()
    assert finished_stage(tmp_path / "run", "finetune")["summary"] == {"pairs": 3}


def test_another_configuration_is_refused_and_discarded_with_force(tmp_path: Path) -> None:
    Stage(tmp_path / "run", "finetune", {"seed": 1, "mode": "cached"}).open()
    other = Stage(tmp_path / "run", "finetune", {"seed": 2, "mode": "cached"})
    with pytest.raises(ConfigError, match=r"differs in seed.*--force"):
        other.open()
    assert not other.open(force=True)
    assert read_stage(tmp_path / "run")["inputs"]["seed"] == 2


def test_a_configuration_is_the_kind_and_the_inputs_in_any_order(tmp_path: Path) -> None:
    Stage(tmp_path / "run", "finetune", {"seed": 1, "mode": "cached"}).open()
    assert not Stage(tmp_path / "run", "finetune", {"mode": "cached", "seed": 1}).open()
    with pytest.raises(ConfigError, match=r"holds the finetune of another configuration \(it differs in kind\)"):
        Stage(tmp_path / "run", "pretrain", {"seed": 1, "mode": "cached"}).open()


def test_device_and_checkpoint_seconds_may_change_between_two_starts(tmp_path: Path) -> None:
    def stage(seed: int = 1, *, device: str, every: float) -> Stage:
        loop = LoopOptions(epochs=1, batch_size=2, learning_rate=0.1, seed=seed, checkpoint_seconds=every)
        return Stage(tmp_path / "run", "finetune", {"options": {"device": device, "loop": loop}, "mode": "cached"})

    assert not stage(device="auto", every=30.0).open()
    stage(device="auto", every=30.0).finish({})
    assert stage(device="cpu", every=1.0).open()
    with pytest.raises(ConfigError, match=r"\(it differs in options.loop.seed: 1, now 2\)"):
        stage(2, device="cpu", every=1.0).open()
    inputs = {"options": {"device": "cpu", "loop": LoopOptions(epochs=1, batch_size=2, learning_rate=0.1, seed=1)}}
    with pytest.raises(ConfigError, match=r"\(it differs in mode: 'cached', now None\)"):
        Stage(tmp_path / "run", "finetune", inputs).open()


def test_a_refusal_names_digests_without_their_values_and_a_few_of_many_options(tmp_path: Path) -> None:
    def stage(review: str, **changed: int) -> Stage:
        options = dict.fromkeys("abcde", 1) | changed
        return Stage(tmp_path / "run", "finetune", {"options": options, "table": digest_of([review])})

    stage("this").open()
    with pytest.raises(ConfigError, match=r"\(it differs in options.b: 1, now 0; table\)"):
        stage("that", b=0).open()
    with pytest.raises(ConfigError, match=r"in options.a: 1, now 2; .*; options.d: 1, now 2; and 2 more\)"):
        stage("that", **dict.fromkeys("abcde", 2)).open()


def test_equal_inputs_with_the_fingerprint_of_another_version_are_refused(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "run", "finetune", {"seed": 1})
    stage.open()
    path = tmp_path / "run" / STAGE_FILE
    path.write_text(path.read_text().replace(stage.fingerprint, "0123456789abcdef"))
    with pytest.raises(ConfigError, match=r"\(it differs in the version of this program\)"):
        stage.open()


def test_a_digest_of_names_depends_on_their_boundaries_and_order() -> None:
    assert len({digest_of(names) for names in (["ab", "c"], ["a", "bc"], ["abc"], ["c", "ab"])}) == 4


def test_a_directory_without_a_stage_is_never_discarded(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("of the user")
    with pytest.raises(ConfigError, match="give a new directory"):
        Stage(tmp_path, "finetune", {}).open(force=True)
    assert (tmp_path / "notes.txt").exists()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_killed_discard_matches_no_stage_and_can_be_repeated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, moment: str
) -> None:
    run = tmp_path / "run"
    old, new = (Stage(run, "finetune", {"seed": seed}) for seed in (1, 2))
    old.open()
    (run / "tensorboard").mkdir()
    (run / "tensorboard" / "events").write_text("losses")
    (run / "model.safetensors").write_text("weights")
    old.finish({})

    def killed_rmtree(path: Path) -> None:
        """``shutil.rmtree`` in a process that is killed before or after it."""
        if moment == "after":
            (path / STAGE_FILE).unlink(missing_ok=True)  # removed first, should it be in this folder
            for entry in path.iterdir():
                entry.unlink()
            path.rmdir()
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed_rmtree)
        with pytest.raises(Killed):
            new.open(force=True)
    for stage in (old, new):
        with pytest.raises(ConfigError, match=r"is half discarded .* --force to continue"):
            stage.open()
    assert not new.open(force=True)
    assert [path.name for path in run.iterdir()] == [STAGE_FILE]


def test_a_directory_in_which_the_very_first_write_was_killed_can_be_opened(tmp_path: Path) -> None:
    (tmp_path / f".{STAGE_FILE}.123.partial").write_text("{")
    assert not Stage(tmp_path, "finetune", {}).open()


def test_two_runs_are_never_at_work_in_one_directory(tmp_path: Path) -> None:
    cpu = Accelerator(cpu=True)
    first, other = (Stage(tmp_path / "run", "finetune", {"seed": seed}) for seed in (1, 2))
    with first.held(cpu) as finished:
        assert not finished
        (tmp_path / "run" / "best.safetensors").write_text("weights")
        for second, force in ((first, False), (other, False), (other, True)):
            with (
                pytest.raises(InputError, match=r"another run is at work in .*: wait for it"),
                second.held(cpu, force=force),
            ):
                pass
        first.finish({})
    assert (tmp_path / "run" / "best.safetensors").exists()
    with first.held(cpu) as finished, first.held(cpu) as finished_too:
        assert finished
        assert finished_too
    with other.held(cpu, force=True), pytest.raises(InputError, match="another run"), first.held(cpu):
        pass


def test_a_failed_run_releases_its_directory(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "run", "finetune", {"seed": 1})
    with pytest.raises(Killed), stage.held(Accelerator(cpu=True)):
        raise Killed
    with stage.held(Accelerator(cpu=True)) as finished:
        assert not finished


def test_a_later_stage_requires_a_finished_one_of_the_right_kind(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no stage\.json"):
        finished_stage(tmp_path, "pretrain")
    stage = Stage(tmp_path / "run", "pretrain", {})
    stage.open()
    with pytest.raises(InputError, match="unfinished; run `ubert pretrain`"):
        finished_stage(tmp_path / "run", "pretrain")
    stage.finish({})
    with pytest.raises(InputError, match="is a pretrain"):
        finished_stage(tmp_path / "run", "finetune")
