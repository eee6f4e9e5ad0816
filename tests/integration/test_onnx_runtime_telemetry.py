"""Unless disabled before its import, ONNX Runtime reports its use to its maker, by way of files in the home."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("module", ["ubert_service.scoring.runtime", "ubert_training.states.review_encoders"])
def test_importing_our_packages_disables_the_telemetry_of_onnx_runtime(module: str, tmp_path: Path) -> None:
    unset = {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment["HOME"] = str(tmp_path)
    subprocess.run([sys.executable, "-c", f"import {module}"], env=environment, check=True, timeout=120)
    assert not list(tmp_path.rglob("*onnxruntime*"))
