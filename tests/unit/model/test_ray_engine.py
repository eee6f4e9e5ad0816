"""Without Ray, or without a cluster at its address, the error says what to do."""

import sys
from pathlib import Path

import pytest

from support.ray_jobs import Squares
from ubert_model.errors import ClusterError, ConfigError, UbertError
from ubert_model.running.ray_engine import RayEngine


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
