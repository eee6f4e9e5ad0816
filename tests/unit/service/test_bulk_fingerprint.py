"""The fingerprint of a bulk rating: a run resumes an interrupted one only if they share it."""

import os
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
def test_the_fingerprint_covers_origin_shard_and_store_but_not_the_password(
    tmp_path: Path, change: dict[str, Any], same: bool
) -> None:
    (pairs := tmp_path / "pairs.csv").write_text("user,item\nu,i\n")

    def fingerprint(*, store: str, shard: Shard, origin: dict[str, object]) -> str:
        return _fingerprint(pairs, Settings.of(bundle="b", store=store), shard, origin)

    run: dict[str, Any] = {"store": "redis://:secret@one/0", "shard": Shard(number=1, shards=3), "origin": ORIGIN}
    assert (fingerprint(**{**run, **change}) == fingerprint(**run)) == same


@pytest.mark.parametrize(
    ("text", "written_at_ns"),
    [("user,item\nu,i\n", 0), ("user,item\nu,i\nu,j\n", 1)],
    ids=["touched", "appended to"],
)
def test_the_fingerprint_covers_the_pair_file(tmp_path: Path, text: str, written_at_ns: int) -> None:
    (pairs := tmp_path / "pairs.csv").write_text("user,item\nu,i\n")
    os.utime(pairs, ns=(1, 1))
    settings = Settings.of(bundle="b", store="redis://one/0")
    before = _fingerprint(pairs, settings, Shard(), ORIGIN)
    pairs.write_text(text)
    os.utime(pairs, ns=(1, written_at_ns))
    assert _fingerprint(pairs, settings, Shard(), ORIGIN) != before
