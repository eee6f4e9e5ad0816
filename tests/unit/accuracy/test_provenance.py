"""The digest of the code that computes ratings."""

from pathlib import Path

import pytest

import ubert_model
import ubert_training
from ubert_training.accuracy.provenance import WITHOUT_EFFECT, code_digest


def test_the_code_digest_changes_exactly_with_code_that_affects_ratings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in (ubert_model, ubert_training):
        monkeypatch.setattr(package, "__file__", str(tmp_path / "ubert_model" / "__init__.py"))

    without_effect = ("accuracy/report.py", "commands/train.py", "evaluation/markdown.py", "export/graphs.py", "cli.py")

    def digest(changed: str | None = None, to: str = "X = 2") -> str:
        for name in ("atomic.py", "nn/layer.py", "accuracy/distortions.py", *without_effect):
            path = tmp_path / "ubert_model" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(to if name == changed else "X = 1")
        return code_digest.__wrapped__()

    assert {digest(name) for name in without_effect} == {digest()}
    assert digest("atomic.py", '"""Text."""\n\nX = (  # comment\n    1\n)\n"""Text about X."""\n') == digest()
    changed = [digest(name) for name in ("nn/layer.py", "atomic.py", "accuracy/distortions.py")]
    assert len({digest(), *changed, digest("atomic.py", "X = '1'")}) == 5


def test_all_code_that_is_said_to_affect_no_prediction_exists() -> None:
    root = Path(str(ubert_training.__file__)).parent
    assert [name for name in WITHOUT_EFFECT if not (root / name).exists()] == []
