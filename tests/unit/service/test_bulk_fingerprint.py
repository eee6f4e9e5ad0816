"""What a run of ratings that was cut off must share with the one that continues it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ubert_model.running.sharding import Shard
from ubert_service.bulk.rating import _fingerprint
from ubert_service.settings import Settings

ORIGIN = {"bundle": "b", "states": "0f", "runtime": "onnx", "coverage": 0.9}


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"store": "redis://:another@one/0"}, True),
        ({"store": "redis://:secret@two/0"}, False),
        ({"shard": Shard(number=2, shards=3)}, False),
        *(({"origin": {**ORIGIN, name: "another"}}, False) for name in ORIGIN),
    ],
    ids=str,
)
def test_ratings_of_anything_else_are_never_mixed_in(tmp_path: Path, change: dict[str, Any], same: bool) -> None:
    (pairs := tmp_path / "pairs.csv").write_text("user,item\nu,i\n")

    def named(*, store: str, shard: Shard, origin: dict[str, object]) -> str:
        return _fingerprint(pairs, Settings.of(bundle="b", store=store), shard, origin)

    run: dict[str, Any] = {"store": "redis://:secret@one/0", "shard": Shard(number=1, shards=3), "origin": ORIGIN}
    assert (named(**{**run, **change}) == named(**run)) == same


@pytest.mark.parametrize(
    "change",
    [
        lambda pairs: os.utime(pairs, ns=(0, 0)),
        lambda pairs: (pairs.write_text("user,item\nu,i\nu,j\n"), os.utime(pairs, ns=(1, 1))),
    ],
    ids=["written again", "grown"],
)
def test_nor_those_of_a_file_that_was_changed(tmp_path: Path, change: Callable[[Path], object]) -> None:
    (pairs := tmp_path / "pairs.csv").write_text("user,item\nu,i\n")
    os.utime(pairs, ns=(1, 1))
    settings = Settings.of(bundle="b", store="redis://one/0")
    before = _fingerprint(pairs, settings, Shard(), ORIGIN)
    change(pairs)
    assert _fingerprint(pairs, settings, Shard(), ORIGIN) != before
