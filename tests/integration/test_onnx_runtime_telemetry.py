"""ONNX Runtime, unless told otherwise before it is imported, reports to its maker and keeps its reports in the home."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("module", ["ubert_service.scoring.runtime", "ubert_training.states.review_encoders"])
def test_nothing_is_reported_to_the_maker_of_onnx_runtime(module: str, tmp_path: Path) -> None:
    left_out = {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    subprocess.run([sys.executable, "-c", f"import {module}"], env={**environment, "HOME": str(tmp_path)}, check=True)
    assert not list(tmp_path.rglob("*onnxruntime*"))
