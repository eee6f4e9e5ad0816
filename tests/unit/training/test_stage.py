"""A stage's directory: continued, left alone or refused, never mixed."""

from pathlib import Path

import pytest

from ubert_model.errors import ConfigError, InputError
from ubert_training.stage import Stage, finished_stage, read_stage


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


def test_a_directory_of_somebody_else_is_never_discarded(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="give a new directory"):
        Stage(tmp_path, "finetune", {}).open(force=True)
    assert (tmp_path / "thesis.tex").exists()


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
