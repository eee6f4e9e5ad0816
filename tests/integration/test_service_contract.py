"""Any request to the running service is answered as its OpenAPI description says: schemathesis, with a fixed seed.

``tests/schemathesis.toml`` says what is checked, and how to run longer.
"""

import re
import subprocess
import sys
from pathlib import Path

from support.serve_process import ServeProcess
from support.tiny_bundle import TinyBundle
from ubert_model.states import MaintenanceStore

CONFIG = Path(__file__).parents[1] / "schemathesis.toml"
LEAST_CASES = 500


def test_generated_requests_are_answered_as_the_openapi_description_says(
    tiny: TinyBundle, own_redis_url: str, filled_redis_store: MaintenanceStore, tmp_path: Path
) -> None:
    arguments = ["--bundle", str(tiny.bundle.path), "--store", own_redis_url, "--codec", "fp32", "--device", "cpu"]
    with ServeProcess(*arguments, "--threads", "1", "--texts") as service:
        address = str(service.client.base_url.join("/openapi.json"))
        run = subprocess.run(
            [
                *(Path(sys.executable).with_name("schemathesis"), "--config-file", CONFIG, "run", address),
                *("--max-examples", "5", "--no-color"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        alive = service.client.get("/healthz").status_code
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr
    assert alive == 200
    generated = re.search(r"(\d+) generated", run.stdout)
    assert generated is not None, run.stdout
    assert int(generated[1]) > LEAST_CASES
