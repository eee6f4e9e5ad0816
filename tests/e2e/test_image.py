"""The image that the Dockerfile builds, run with its own entry point, user and health check.

`.ci/run` builds the image with buildah and names it in ``TEST_SERVICE_IMAGE``; without it these tests are skipped.
"""

import json
import os
import queue
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import httpx
import pytest

from support.redis_server import RedisServer
from support.tiny_bundle import Corpus, TinyBundle, random_corpus, shared_tiny_bundle, torch_rating
from ubert_model.bundle import Bundle
from ubert_model.states import open_store

IMAGE = os.environ.get("TEST_SERVICE_IMAGE", "")
SECONDS_TO_START = 120.0
LISTENING = re.compile(r"listening on http://[^\s:]+:(\d+)")

pytestmark = [
    pytest.mark.skipif(not IMAGE, reason="TEST_SERVICE_IMAGE names no image: build one as .ci/run does"),
    pytest.mark.timeout(900),
]


def buildah(*arguments: str) -> str:
    done = subprocess.run(["buildah", *arguments], check=False, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@dataclass(frozen=True, kw_only=True)
class Container:
    """A container of the image on this machine's network, with ``folder`` mounted read-only at /data."""

    name: str
    folder: Path

    def command(self, *arguments: str, **environment: str) -> list[str]:
        """The command that runs ``arguments`` in the container, as the image's own user."""
        options = ["--isolation", "chroot", "--network", "host", "--volume", f"{self.folder}:/data:ro"]
        for name, value in environment.items():
            options += ["--env", f"{name}={value}"]
        return ["buildah", "run", *options, self.name, *arguments]

    def run(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        command = self.command(*arguments, **environment)
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)

    @contextmanager
    def serving(self, **environment: str) -> Iterator[int]:
        """While entered, runs the image's entry point on a free port, which it yields."""
        settings = {**environment, "UBERT_PORT": "0", "UBERT_HOST": "127.0.0.1"}
        with subprocess.Popen(
            self.command(*image_config()["Entrypoint"], **settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            assert process.stdout is not None
            ports: queue.Queue[int | None] = queue.Queue()
            log: list[str] = []
            reader = threading.Thread(target=_find_port, args=(process.stdout, ports, log))
            reader.start()
            try:
                port = ports.get(timeout=SECONDS_TO_START)
                assert port is not None, "".join(log)
                yield port
            finally:
                os.killpg(process.pid, signal.SIGKILL)
                reader.join()


def _find_port(output: IO[str], ports: "queue.Queue[int | None]", log: list[str]) -> None:
    for line in output:
        log.append(line)
        if found := LISTENING.search(line):
            ports.put(int(found[1]))
    ports.put(None)


def image_config() -> dict[str, Any]:
    config: dict[str, Any] = json.loads(buildah("inspect", "--type", "image", IMAGE))["Docker"]["config"]
    return config


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyBundle:
    volume = tmp_path_factory.mktemp("volume")
    volume.chmod(0o755)  # the container runs as another user
    shared = shared_tiny_bundle(tmp_path_factory)
    shutil.copytree(shared.bundle.path, volume / "bundle")
    return replace(shared, bundle=Bundle.load(volume / "bundle"))


@pytest.fixture(scope="module")
def container(tiny: TinyBundle) -> Iterator[Container]:
    name = buildah("from", "--pull-never", IMAGE)
    yield Container(name=name, folder=tiny.bundle.path.parent)
    buildah("rm", name)


@pytest.fixture(scope="module")
def filled_store(tiny: TinyBundle) -> Iterator[tuple[str, Corpus]]:
    """The URL of a Redis on this machine's network, and the corpus that it holds."""
    corpus = random_corpus(tiny.model, users=8, items=12, reviews=48)
    with RedisServer() as server:
        with closing(open_store(server.url)) as store:
            corpus.write(store, tiny.bundle)
        yield server.url, corpus


def test_the_image_serves_the_ratings_of_the_trained_model(
    container: Container, tiny: TinyBundle, filled_store: tuple[str, Corpus]
) -> None:
    url, corpus = filled_store
    pairs = [(entry.user, other.item) for entry, other in zip(corpus.entries[:8], corpus.entries[8:16], strict=True)]
    with container.serving(UBERT_STORE=url, UBERT_CODEC="fp32") as port:
        request = {"pairs": [{"user": user, "item": item} for user, item in pairs]}
        answer = httpx.post(f"http://127.0.0.1:{port}/predict", json=request, timeout=30, trust_env=False)
        assert answer.status_code == 200, answer.text
        ratings = [prediction["rating"] for prediction in answer.json()["predictions"]]
        assert ratings == pytest.approx([torch_rating(tiny, corpus, *pair) for pair in pairs], abs=1e-4)
        assert health(container, port).returncode == 0


def test_the_health_check_of_the_image_fails_while_the_store_is_unavailable(container: Container) -> None:
    with container.serving(UBERT_STORE="redis://127.0.0.1:1/0") as port:
        result = health(container, port)
    assert result.returncode != 0
    assert "503" in result.stderr


def test_the_image_contains_no_torch_no_compiler_and_no_pip(container: Container) -> None:
    script = "import importlib.util as u; print([n for n in ('torch', 'transformers', 'pip') if u.find_spec(n)])"
    assert container.run("python", "-c", script).stdout == "[]\n"
    for tool in ("gcc", "cc", "g++"):
        assert container.run("sh", "-c", f"command -v {tool}").returncode != 0, tool


def test_the_image_runs_as_an_unprivileged_user(container: Container) -> None:
    assert container.run("id", "-u").stdout == "10001\n"
    assert container.run("sh", "-c", "touch /opt/ubert/x || touch /x").returncode != 0


def health(container: Container, port: int) -> "subprocess.CompletedProcess[str]":
    """The image's own HEALTHCHECK."""
    kind, *command = image_config()["Healthcheck"]["Test"]
    assert kind == "CMD"
    return container.run(*command, UBERT_PORT=str(port))
