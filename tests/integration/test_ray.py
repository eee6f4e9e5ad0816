"""A real Ray cluster of two workers writes the same bytes as one process, also when portions or workers fail."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from support.app_settings import settings_for
from support.processes import running
from support.ray_jobs import Squares
from support.small_corpus import small_table
from support.store_contents import contents
from support.tiny_bundle import TinyBundle
from support.waiting import wait_until
from ubert_model.errors import ConfigError, StoreUnavailableError
from ubert_model.running.ray_engine import RayEngine
from ubert_model.running.sharding import Shard
from ubert_model.states import open_store
from ubert_service.bulk.rating import rate_pairs
from ubert_training.cli import make_app

pytestmark = [
    pytest.mark.timeout(900),  # each starts workers that import torch, and may share the cores with others
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),  # Ray itself uses such functions
]
CODEC = "pq1"
FIRST_WRITE_TIMEOUT_S = 600.0

# With small portions, so that some are written before the kill, and some are not.
PRECOMPUTE = """
import sys
from ubert_training.cli import main
from ubert_training.states import precompute_by_ray

precompute_by_ray.REVIEWS_A_PORTION = 16
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster that this process is connected to, and other processes can connect to."""
    with pytest.MonkeyPatch.context() as environment:
        # Workers are other processes, which do not get pytest's ``pythonpath``.
        path = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment.setenv("PYTHONPATH", os.pathsep.join(path))
        with RayEngine(workers=2).connected():
            import ray

            yield ray.get_runtime_context().gcs_address


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("table")
    small_table(users=200).save(folder / "reviews.parquet")
    return folder


def flags(tiny: TinyBundle, table: Path, store: Path) -> list[str]:
    where = ["--reviews", str(table), "--bundle", str(tiny.bundle.path), "--store", f"lmdb:{store}"]
    return ["precompute", *where, "--codec", CODEC, "--texts", "--device", "cpu"]


def precompute(arguments: Sequence[str]) -> str:
    result = CliRunner().invoke(make_app(["precompute"]), arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def stored(store: Path, tiny: TinyBundle) -> dict[str, Any]:
    with closing(open_store(f"lmdb:{store}")) as opened:
        return contents(opened, tiny.bundle.manifest.namespace(CODEC).version)


@pytest.fixture(scope="module")
def expected(tiny: TinyBundle, table: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the local engine writes."""
    store = tmp_path_factory.mktemp("local") / "states"
    precompute(flags(tiny, table, store))
    return stored(store, tiny)


def test_precompute_on_a_cluster_writes_the_same_bytes_as_one_process(
    cluster: str,
    tiny: TinyBundle,
    table: Path,
    expected: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ubert_training.states.precompute_by_ray.REVIEWS_A_PORTION", 100)
    by_ray = [*flags(tiny, table, tmp_path / "states"), "--engine", "ray", "--workers", "2"]
    precompute(by_ray)
    assert stored(tmp_path / "states", tiny) == expected
    assert len(expected["states"]) == 1200
    assert "1200 already there, 0 written" in " ".join(precompute(by_ray).split())


def test_a_precompute_killed_on_a_cluster_is_completed_by_the_local_engine(
    cluster: str, tiny: TinyBundle, table: Path, expected: dict[str, Any], tmp_path: Path
) -> None:
    command = flags(tiny, table, tmp_path / "states")
    by_ray = ["--engine", "ray", "--ray-address", cluster, "--workers", "1"]
    with (
        closing(open_store(f"lmdb:{tmp_path / 'states'}")) as store,
        running([sys.executable, "-c", PRECOMPUTE, *command, *by_ray], stdout=subprocess.DEVNULL) as process,
    ):
        version = tiny.bundle.manifest.namespace(CODEC).version
        wait_until(
            lambda: any(store.state_sizes(version)) or process.poll() is not None, within_s=FIRST_WRITE_TIMEOUT_S
        )
        assert process.poll() is None
        process.kill()
        process.wait(timeout=60)
        assert 0 < sum(1 for _ in store.state_sizes(version)) < len(expected["states"])
        assert store.finished_shards(version) == []
    precompute(command)
    assert stored(tmp_path / "states", tiny) == expected


def test_only_portions_that_fail_or_lose_their_worker_are_retried(cluster: str, tmp_path: Path) -> None:
    results = dict(RayEngine(workers=2).results(Squares(folder=tmp_path, raises=3, dies=6), list(range(9))))
    assert {place: square for place, (square, _) in results.items()} == {number: number**2 for number in range(9)}
    assert sorted(path.name for path in tmp_path.glob("tried-*-1")) == ["tried-3-1", "tried-6-1"]
    opened = [path.name for path in tmp_path.glob("opened-*")]
    assert len(opened) >= 2, "the killed worker was not replaced"
    assert all(name.endswith("-0") for name in opened), "a worker opened its job twice"


def test_an_error_that_every_attempt_raises_reaches_the_driver_unchanged(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ubert_model.running.ray_engine.ATTEMPTS", 2)
    with pytest.raises(StoreUnavailableError, match=r"^no store for 3; start it$"):
        list(RayEngine(workers=1).results(Squares(folder=tmp_path, raises=3, times=9), list(range(5))))
    assert len(list(tmp_path.glob("tried-3-*"))) == 2


def test_more_workers_than_the_cluster_has_room_for_are_refused(cluster: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="workers = 2: the cluster has 2 CPU, and each takes 2 CPU"):
        list(RayEngine(workers=2, cpus=2).results(Squares(folder=tmp_path), [1]))


def test_bulk_rating_on_a_cluster_writes_the_same_bytes_as_one_process(
    cluster: str, tiny: TinyBundle, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    precompute(flags(tiny, table, tmp_path / "states"))
    monkeypatch.setattr("ubert_service.bulk.rating.PAIRS_A_PORTION", 64)
    pairs = [f"user-{user:02},item-{item:02}\n" for user in range(30) for item in range(10)]
    (tmp_path / "pairs.csv").write_text("user,item\n" + "".join(pairs))
    settings = settings_for(tiny.bundle, store=f"lmdb:{tmp_path / 'states'}", codec=CODEC)
    for out, engine in (("local.parquet", None), ("ray.parquet", RayEngine(workers=2))):
        rated = rate_pairs(tmp_path / "pairs.csv", tmp_path / out, settings, shard=Shard(), engine=engine)
        assert rated == len(pairs)
    assert (tmp_path / "ray.parquet").read_bytes() == (tmp_path / "local.parquet").read_bytes()


def test_an_import_on_a_cluster_writes_the_same_bytes_as_one_process(cluster: str, tmp_path: Path) -> None:
    files = []
    for number in range(3):
        lines = [
            {
                "reviewerID": f"u{line % 7}",
                "asin": f"i{(line + number) % 5}",
                "overall": 1 + line % 6,  # a sixth of them outside the scale
                "reviewText": f"words {line % (20 + number)}",
                "unixReviewTime": line,
            }
            for line in range(60)
        ]
        files.append(tmp_path / f"reviews_Part{number}_5.json.gz")
        files[-1].write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode(), mtime=0))
    runner = CliRunner()
    for engine in ("local", "ray"):
        command = ["import", *map(str, files), "--out", str(tmp_path / engine), "--core", "2", "--max-bad", "0.5"]
        result = runner.invoke(make_app(["import"]), [*command, "--engine", engine], catch_exceptions=False)
        assert result.exit_code == 0, result.output
    local, by_ray = (
        {path.name: path.read_bytes() for path in sorted((tmp_path / engine).iterdir())} for engine in ("local", "ray")
    )
    assert by_ray == local
    assert sorted(local) == ["rejects.jsonl", "report.json", "reviews.parquet"]
