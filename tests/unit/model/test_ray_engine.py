"""Without Ray, or without a cluster at its address, the error says what to do."""

import sys
from pathlib import Path

import pytest

from support.ray_jobs import Squares
from ubert_model.errors import ClusterError, ConfigError, UbertError
from ubert_model.running.ray_engine import RayEngine, ray_engine_or_none


def test_without_ray_the_error_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"engine = 'ray': .*ray.*; pip install '\.\[ray\]'"):
        list(RayEngine().results(Squares(folder=tmp_path), [1]))


@pytest.mark.parametrize(
    ("address", "kind", "message"),
    [
        ("127.0.0.1:1", ClusterError, r"no Ray cluster answers at 127\.0\.0\.1:1 .*refused.*ray start --head"),
        ("ray://head:10001", ConfigError, "ray address = 'ray://head:10001': write HOST:PORT"),
        ("head", ConfigError, "ray address = 'head': write HOST:PORT"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_an_address_without_a_cluster_is_refused_by_name(
    tmp_path: Path, address: str, kind: type[UbertError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        list(RayEngine(address=address).results(Squares(folder=tmp_path), [1]))


@pytest.mark.parametrize(
    ("address", "workers", "cpus", "refused"),
    [("h:1", 0, 1, "ray address = 'h:1'"), (None, 3, 1, "workers = 3"), (None, 0, 2, "worker cpus = 2")],
)
def test_options_of_a_cluster_are_refused_without_one(
    address: str | None, workers: int, cpus: int, refused: str
) -> None:
    with pytest.raises(ConfigError, match=f"{refused}: .*add --engine ray"):
        ray_engine_or_none("local", address=address, workers=workers, cpus=cpus)
