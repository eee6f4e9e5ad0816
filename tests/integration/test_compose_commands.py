"""The compose project without containers: its own commands and settings, as plain processes, against a real Redis."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from support.compose import BASE, ROOT, environment_of, load_compose
from support.redis_server import RedisServer
from support.running_app import wait_until_ready
from support.serve_process import ServeProcess
from ubert_training.corpora.synth import REVIEWS, SynthOptions, write_corpus
from ubert_training.reviews.table import ReviewTable

pytestmark = pytest.mark.timeout(900)  # they train, in processes that may share the cores with others
JOB_TIMEOUT_S = 600
CORPUS = SynthOptions(users=120, items=40, reviews=1200, domains=1)
SMALL = {"UBERT_PRESET": "tiny", "UBERT_DEVICE": "cpu", "UBERT_REVIEW_FILES": REVIEWS}
SHORT = {"UBERT_PRETRAIN_EPOCHS": "1", "UBERT_FINETUNE_EPOCHS": "2", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True, kw_only=True)
class Project:
    """The containers' folders as folders of this machine, and the compose file's Redis."""

    redis: RedisServer
    reviews: Path
    data: Path
    services: dict[str, Any]

    def run_job(self) -> str:
        """Run the job as ``docker compose run train`` would; returns its output. Fails unless the job succeeds."""
        train = self.services["train"]
        (script,) = train["entrypoint"]
        folders = {"/reviews": self.reviews, "/data": self.data}
        environment = {**os.environ, **environment_of(train), **SHORT, "NO_COLOR": "1", "COLUMNS": "200"}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            [ROOT / "docker" / Path(script).name, *(folders[name] for name in train["command"])],
            env=environment,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=JOB_TIMEOUT_S,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def service(self, monkeypatch: pytest.MonkeyPatch) -> ServeProcess:
        """The service as ``docker compose up service`` would start it, on a free port."""
        for name, value in environment_of(self.services["service"]).items():
            monkeypatch.setenv(name, value)
        return ServeProcess("--bundle", str(self.data / "bundle"))

    def files(self) -> dict[str, tuple[int, int]]:
        """The size and time of change of every file on the data volume."""
        found = sorted(path for path in self.data.rglob("*") if path.is_file())
        return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}

    def stored(self) -> dict[bytes, object]:
        """The value of every key in Redis."""
        while_loading = Retry(ConstantBackoff(0.05), retries=200)
        with redis.Redis.from_url(self.redis.url, retry=while_loading) as client:
            readers = {
                b"stream": client.xrange,
                b"hash": client.hgetall,
                b"set": client.smembers,
                b"string": client.get,
            }
            return {key: readers[client.type(key)](key) for key in client.scan_iter()}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("compose")
    (folder / "data").mkdir()
    write_corpus(folder / "reviews", CORPUS)
    command = load_compose(BASE)["services"]["redis"]["command"]
    with RedisServer(*command[1:]) as server:
        environment = {**SMALL, "REDIS_URL": server.url}
        yield Project(
            redis=server,
            reviews=folder / "reviews",
            data=folder / "data",
            services=load_compose(BASE, environment=environment)["services"],
        )


@pytest.fixture(scope="module")
def first_run(project: Project) -> str:
    return project.run_job()


def test_the_service_predicts_with_the_bundle_and_states_of_the_training_job(
    project: Project, first_run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "none left" in first_run
    with project.service(monkeypatch) as service:
        wait_until_ready(service.client)
        assert health_of(service).returncode == 0
        pairs = [{"user": user, "item": item} for user, item in (*some_pairs(project), ("a stranger", "never seen"))]
        answer = service.client.post("/predict", json={"pairs": pairs})
        assert answer.status_code == 200
        predictions = answer.json()["predictions"]
        assert [{"user": one["user"], "item": one["item"]} for one in predictions] == pairs
        assert all(1.0 <= one["rating"] <= 5.0 for one in predictions)
        assert service.terminate() == 0


@pytest.mark.usefixtures("first_run")
def test_running_a_finished_job_again_changes_nothing(project: Project) -> None:
    files, stored = project.files(), project.stored()
    assert len(stored) > 0
    printed = project.run_job()
    assert "nothing to train" in printed
    assert " 0 written" in printed
    assert project.files() == files
    assert project.stored() == stored


@pytest.mark.usefixtures("first_run")
def test_a_finished_job_succeeds_with_a_full_redis(project: Project) -> None:
    """The service starts only after the job has succeeded."""
    with redis.Redis.from_url(project.redis.url) as client:
        limit = client.config_get("maxmemory")["maxmemory"]
        client.config_set("maxmemory", 1)
        printed = project.run_job()
        client.config_set("maxmemory", limit)
    assert " 0 written" in printed


@pytest.mark.usefixtures("first_run")
def test_the_service_is_unhealthy_until_the_job_has_refilled_an_emptied_store(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, stored = project.files(), project.stored()
    with redis.Redis.from_url(project.redis.url) as client:
        client.flushall()
    with project.service(monkeypatch) as service:
        assert health_of(service).returncode == 1
        project.run_job()
        wait_until_ready(service.client)
        assert health_of(service).returncode == 0
        assert service.terminate() == 0
    assert project.files() == files, "the job trained again"
    assert project.stored().keys() == stored.keys()


@pytest.mark.usefixtures("first_run")
def test_redis_never_evicts_and_keeps_its_keys_over_a_restart(project: Project) -> None:
    stored = project.stored()
    with redis.Redis.from_url(project.redis.url) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("maxmemory") == {"maxmemory": str(2 * 1024**3)}
    project.redis.stop()
    project.redis.start()
    assert project.stored() == stored


def test_the_command_in_the_compose_file_restores_a_backup_of_redis(tmp_path: Path) -> None:
    server = shutil.which("redis-server")
    version = "" if server is None else subprocess.check_output([server, "--version"], text=True, timeout=60)
    if server is None or "v=7." not in version:
        pytest.skip(f"no Redis 7, in whose append-only format the command restores: {server} {version}")
    text = BASE.read_text(encoding="utf-8").replace("\n#", "")  # the command goes over several lines of a comment
    found = re.search(r"redis sh -c '(cd /data [^']+)' < backup\.rdb", text)
    assert found is not None
    options = load_compose(BASE)["services"]["redis"]["command"][1:]
    backup = tmp_path / "backup.rdb"
    with RedisServer(*options, binary=server) as before, redis.Redis.from_url(before.url) as client:
        client.mset({"key": "value", "other": "value"})
        command_line = [str(Path(server).with_name("redis-cli")), "-p", str(before.port), "--rdb", str(backup)]
        subprocess.run(command_line, check=True, timeout=60)
    with RedisServer(*options, binary=server) as after:
        after.stop()
        command = found[1].replace("/data", str(after.directory))
        with backup.open("rb") as content:
            subprocess.run(["sh", "-c", command], stdin=content, check=True, timeout=60)
        expected = {b"key", b"other"}
        for _ in range(2):
            after.start()
            with redis.Redis.from_url(after.url) as client:
                assert set(client.keys()) == expected
                client.set("written since", "value")
            expected.add(b"written since")
            after.stop()


def some_pairs(project: Project) -> list[tuple[str, str]]:
    table = ReviewTable.load(project.data / "reviews" / "reviews.parquet")
    return [(str(table.user[row]), str(table.item[-row - 1])) for row in range(3)]


def health_of(service: ServeProcess) -> subprocess.CompletedProcess[bytes]:
    """The health check as the container runs it."""
    port = service.address.rpartition(":")[2]
    environment = {**os.environ, "UBERT_PORT": port}
    script = ROOT / "docker" / "healthcheck.py"
    return subprocess.run([sys.executable, script], env=environment, check=False, capture_output=True, timeout=20)
