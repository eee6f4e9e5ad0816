"""Store keys and the byte formats beside states: no two things share a key, and damaged records are refused."""

import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from redis.crc import key_slot

from ubert_model.errors import CorruptStateError, InputError
from ubert_model.review import ReviewEntry, Side
from ubert_model.states.changes import unpack_marks
from ubert_model.states.keys import LmdbKeys, RedisKeys
from ubert_model.states.records import (
    pack_candidates,
    pack_line,
    pack_text,
    unpack_candidates,
    unpack_line,
    unpack_namespace,
    unpack_shard,
    unpack_text,
)

VERSION = "0123456789abcdef"
IDENTIFIERS = st.text(alphabet=st.characters(codec="utf-8"), min_size=1, max_size=64)
AWKWARD_IDENTIFIERS = ["a:b", "{x}", "}{", "%7B", "%", "ä", "日本語", "a b\n", "\0", "state:*", "🙂" * 64, "x" * 256]


def entry_of(review_id: str = "r", user: str = "u", item: str = "i") -> ReviewEntry:
    return ReviewEntry(
        review_id=review_id, user=user, item=item, rating=4.5, timestamp=1_400_000_000, rows=12, surplus=-0.5
    )


@given(first=IDENTIFIERS, second=IDENTIFIERS)
def test_two_identifiers_never_share_a_key(first: str, second: str) -> None:
    assume(first != second)
    for keys in (RedisKeys(VERSION), LmdbKeys(VERSION)):
        assert keys.state(first) != keys.state(second)
        assert keys.reviews(Side.USER, first) != keys.reviews(Side.USER, second)


def test_two_kinds_or_versions_never_share_a_key() -> None:
    for keys in (RedisKeys, LmdbKeys):
        both = [keys(VERSION), keys("f" * 16)]
        made = [key for k in both for key in (k.state("a"), k.reviews(Side.USER, "a"), k.reviews(Side.ITEM, "a"))]
        assert len(set(made)) == 6


@given(IDENTIFIERS)
@pytest.mark.parametrize("side", Side)
def test_an_entity_is_read_back_from_its_key(side: Side, entity: str) -> None:
    assert RedisKeys.name(RedisKeys(VERSION).reviews(side, entity)) == entity
    prefix = LmdbKeys(VERSION).reviews(side, entity)
    assert LmdbKeys.entity(prefix) == entity
    line = LmdbKeys(VERSION).line(side, entry_of(user=entity, item=entity))
    assert LmdbKeys.list_of(line) == prefix


@given(first=IDENTIFIERS, second=IDENTIFIERS)
def test_the_key_of_a_line_never_has_the_prefix_of_another_entity(first: str, second: str) -> None:
    assume(first != second)
    line = LmdbKeys(VERSION).line(Side.USER, entry_of(user=first))
    assert not line.startswith(LmdbKeys(VERSION).reviews(Side.USER, second))


def test_identifiers_in_braces_spread_over_the_slots_of_a_cluster() -> None:
    keys = RedisKeys(VERSION)
    slots = {key_slot(keys.state(f"{{same}}{number}")) for number in range(50)}
    assert len(slots) > 25


@pytest.mark.parametrize("identifier", AWKWARD_IDENTIFIERS)
def test_every_key_fits_lmdb(identifier: str) -> None:
    assert len(LmdbKeys(VERSION).line(Side.USER, entry_of(user=identifier, review_id=identifier))) <= 511
    assert len(LmdbKeys(VERSION).state(identifier)) <= 511


def test_every_key_begins_with_its_version() -> None:
    assert RedisKeys(VERSION).state("r") == b"ubert:0123456789abcdef:state:r"
    assert RedisKeys(VERSION).reviews(Side.USER, "a:{b}%") == b"ubert:0123456789abcdef:user:a%3A%7Bb%7D%25"
    assert LmdbKeys(VERSION).state("r").startswith(bytes.fromhex(VERSION))


@pytest.mark.parametrize("identifier", ["", "x" * 257, "é" * 129, "\ud800"])
@pytest.mark.parametrize("keys", [RedisKeys, LmdbKeys])
def test_an_identifier_that_cannot_be_a_key_is_refused(keys: type[RedisKeys] | type[LmdbKeys], identifier: str) -> None:
    with pytest.raises(InputError, match="identifier"):
        keys(VERSION).state(identifier)
    with pytest.raises(InputError, match="identifier"):
        keys(VERSION).reviews(Side.ITEM, identifier)


@pytest.mark.parametrize("version", ["*", "", "0123456789abcde?", "0123456789ABCDEF", "0123456789abcdef\n"])
@pytest.mark.parametrize("keys", [RedisKeys, LmdbKeys])
def test_a_malformed_version_is_refused(keys: type[RedisKeys] | type[LmdbKeys], version: str) -> None:
    with pytest.raises(InputError, match="version"):
        keys(version)


@given(
    review_id=IDENTIFIERS,
    other=IDENTIFIERS,
    rating=st.floats(allow_nan=False),
    timestamp=st.integers(-(2**63), 2**63 - 1),
    rows=st.integers(0, 2**32 - 1),
    surplus=st.floats(allow_nan=False, width=32),
)
@pytest.mark.parametrize("side", Side)
def test_a_line_is_unpacked_to_the_entry_it_was_packed_from(
    side: Side, review_id: str, other: str, rating: float, timestamp: int, rows: int, surplus: float
) -> None:
    entry = ReviewEntry(
        review_id=review_id,
        user=other,
        item="i" + other,
        rating=rating,
        timestamp=timestamp,
        rows=rows,
        surplus=surplus,
    )
    assert unpack_line(pack_line(entry, side), side, side.entity(entry)) == entry


def test_a_changed_byte_of_a_line_never_yields_an_entry() -> None:
    line = pack_line(entry_of(), Side.USER)
    for position in range(len(line)):
        damaged = line[:position] + bytes([line[position] ^ 0x10]) + line[position + 1 :]
        for wrong in (damaged, line[:position]):
            with pytest.raises(CorruptStateError, match="user 'u'"):
                unpack_line(wrong, Side.USER, "u")


def test_a_malformed_line_never_yields_an_entry_despite_a_valid_checksum() -> None:
    def sealed(body: bytes) -> bytes:
        return body + struct.pack("<I", zlib.crc32(body))

    body = pack_line(entry_of(), Side.USER)[:-4]
    for wrong in (sealed(b""), sealed(body[:10]), sealed(body + b"more")):
        with pytest.raises(CorruptStateError, match="user 'u'"):
            unpack_line(wrong, Side.USER, "u")


TEXT, CANDIDATES = pack_text("words"), pack_candidates(["a", "b"])


@pytest.mark.parametrize(
    ("read", "named"),
    [
        (lambda: unpack_text(b"X" + TEXT[1:], "r"), "text of review 'r'"),
        (lambda: unpack_text(TEXT[:3], "r"), "text of review 'r'"),
        (lambda: unpack_candidates(CANDIDATES[:-1], "spring"), "candidate set 'spring'"),
        (lambda: unpack_candidates(zlib.compress(b"["), "spring"), "candidate set 'spring'"),
        (lambda: unpack_namespace(b"{", VERSION), f"description of namespace {VERSION}"),
        (lambda: unpack_namespace(b'{"codec": "int8"}', VERSION), "to write it again"),
        (lambda: unpack_shard(b"{", VERSION), f"finished shard of namespace {VERSION}"),
        (lambda: unpack_shard(b'{"corpus": "c"}', VERSION), "finished shard"),
        (lambda: unpack_marks(bytes(9)), "marks of 8 bytes"),
    ],
)
def test_a_damaged_record_is_refused_by_name(read: Callable[[], object], named: str) -> None:
    with pytest.raises(CorruptStateError, match=named):
        read()


@pytest.mark.parametrize("wrong", [{"rows": -1}, {"rows": 2**32}, {"timestamp": 2**63}, {"surplus": 1e39}])
def test_a_number_that_does_not_fit_a_line_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="'r'"):
        pack_line(replace(entry_of(), **wrong), Side.USER)
