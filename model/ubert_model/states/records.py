"""The byte formats of what stores keep beside states: review list lines, texts, candidate sets, descriptions.

A line, little-endian: format version u8, rating f64, timestamp i64, rows u32, surplus f32, lengths of two identifiers
u16 each, the review identifier, the counterpart (the item in a user's list, the user in an item's), crc32 of everything
before it.
"""

import json
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict

from ubert_model.errors import CorruptStateError, ForeignStateError, InputError, ReviewNameTakenError, StoreError
from ubert_model.identifiers import identifier_bytes
from ubert_model.review import ReviewEntry, Side
from ubert_model.states.store import FinishedShard, Namespace

MAX_STATE_BYTES = 16 * 1024 * 1024
REPAIR_REMEDY = "run `ubert states verify --repair`, then `ubert precompute`"
"""The remedy for a damaged state or line. Precompute alone would not do: it writes only what is missing."""
_LINE_FORMAT = 2
_LINE = struct.Struct("<BdqIfHH")
_CHECKSUM = struct.Struct("<I")


def pack_line(entry: ReviewEntry, side: Side) -> bytes:
    """The line of ``entry`` in one of its two lists. Raises ``InputError`` for a number that does not fit."""
    review, counterpart = identifier_bytes(entry.review_id), identifier_bytes(side.counterpart(entry))
    try:
        numbers = (entry.rating, entry.timestamp, entry.rows, entry.surplus)
        fixed = _LINE.pack(_LINE_FORMAT, *numbers, len(review), len(counterpart))
    except (struct.error, OverflowError) as error:
        raise InputError(f"review {entry.review_id!r} cannot be stored: {error} in {entry}") from error
    body = fixed + review + counterpart
    return body + _CHECKSUM.pack(zlib.crc32(body))


def unpack_line(line: bytes | memoryview, side: Side, entity: str) -> ReviewEntry:
    """The entry of a line in ``entity``'s list. Raises ``CorruptStateError``."""
    if not is_intact(line):
        raise CorruptStateError(f"damaged line in the review list of {side} {entity!r}: {REPAIR_REMEDY}")
    end = len(line) - _CHECKSUM.size
    format_version, rating, timestamp, rows, surplus, review_size, counterpart_size = _LINE.unpack_from(line)
    middle = _LINE.size + review_size
    if format_version != _LINE_FORMAT or middle + counterpart_size != end:
        raise CorruptStateError(
            f"line of unknown format {format_version} in the review list of {side} {entity!r}: use the version of "
            "u-bert that wrote it, or drop this namespace (`ubert states drop`) and run `ubert precompute`"
        )
    counterpart = str(line[middle:end], "utf-8")
    user, item = (entity, counterpart) if side is Side.USER else (counterpart, entity)
    return ReviewEntry(
        review_id=str(line[_LINE.size : middle], "utf-8"),
        user=user,
        item=item,
        rating=rating,
        timestamp=timestamp,
        rows=rows,
        surplus=surplus,
    )


def is_same_pair(line: bytes | memoryview | None, side: Side, entry: ReviewEntry) -> bool:
    """Is ``line``, of the list of ``side`` that would hold ``entry``, of the same user and item? None: no line.

    Raises ``CorruptStateError``.
    """
    return line is not None and side.counterpart(unpack_line(line, side, side.entity(entry))) == side.counterpart(entry)


def is_intact(line: bytes | memoryview) -> bool:
    """Does the checksum of a line match? An intact line may still be of an unknown format."""
    end = len(line) - _CHECKSUM.size
    return end >= _LINE.size and (zlib.crc32(line[:end]),) == _CHECKSUM.unpack_from(line, end)


def pack_text(text: str) -> bytes:
    """A text as UTF-8, followed by its crc32."""
    encoded = text.encode()
    return encoded + _CHECKSUM.pack(zlib.crc32(encoded))


def unpack_text(packed: bytes | memoryview, review_id: str) -> str:
    """Inverse of :func:`pack_text`. Raises ``CorruptStateError``."""
    end = len(packed) - _CHECKSUM.size
    if end < 0 or (zlib.crc32(packed[:end]),) != _CHECKSUM.unpack_from(packed, end):
        raise CorruptStateError(
            f"the stored text of review {review_id!r} is damaged: run `ubert precompute --texts`, or send it again"
        )
    return str(packed[:end], "utf-8")


def pack_candidates(items: Sequence[str]) -> bytes:
    """The items as zlib-compressed JSON; zlib adds a checksum."""
    return zlib.compress(json.dumps(list(items)).encode())


def unpack_candidates(packed: bytes | memoryview, name: str) -> list[str]:
    """Inverse of :func:`pack_candidates`. Raises ``CorruptStateError``."""
    try:
        items: list[str] = json.loads(zlib.decompress(packed))
    except (zlib.error, ValueError) as error:
        raise CorruptStateError(f"the stored candidate set {name!r} is damaged: write it again") from error
    return items


def pack_namespace(namespace: Namespace) -> bytes:
    """A canonical description: equal namespaces give equal bytes."""
    return json.dumps(asdict(namespace), sort_keys=True).encode()


def unpack_namespace(description: bytes, version: str) -> Namespace:
    """Inverse of :func:`pack_namespace`. Raises ``CorruptStateError``."""
    try:
        return Namespace(**json.loads(description))
    except (ValueError, TypeError) as error:
        raise CorruptStateError(
            f"the description of namespace {version} is damaged ({description[:200]!r}): run `ubert precompute` with "
            "its bundle and codec to write it again"
        ) from error


def pack_shard(shard: FinishedShard) -> bytes:
    """A canonical description: a shard that is finished twice is stored once."""
    return json.dumps(asdict(shard), sort_keys=True).encode()


def unpack_shard(description: bytes, version: str) -> FinishedShard:
    """Inverse of :func:`pack_shard`. Raises ``CorruptStateError``."""
    try:
        return FinishedShard(**json.loads(description))
    except (ValueError, TypeError) as error:
        raise CorruptStateError(
            f"the record of a finished shard of namespace {version} is damaged ({description[:200]!r}): run `ubert "
            "precompute --restore-removed` to write it again, which also brings back reviews that were removed since"
        ) from error


def is_damaged(unpack: Callable[[bytes, str], object], description: bytes) -> bool:
    """Does ``unpack`` fail, so that the description may be replaced?"""
    try:
        unpack(description, "")
    except CorruptStateError:
        return True
    return False


def check_same_namespace(namespace: Namespace, stored: bytes | None) -> None:
    """Raise ``ForeignStateError`` unless the stored description is this namespace's."""
    if stored != pack_namespace(namespace):
        raise ForeignStateError(
            f"state version {namespace.version} is taken by {stored!r}, not {namespace}: "
            "drop that namespace, or serve the bundle that wrote it"
        )


def dropped_meanwhile(version: str) -> StoreError:
    """The error for a write to a namespace that is not declared, or no longer."""
    return StoreError(
        f"namespace {version} is not in the store: if it was dropped while this command wrote it, run the command again"
    )


def name_taken(review_id: str) -> ReviewNameTakenError:
    """The error for a new review under the id of another pair's review."""
    return ReviewNameTakenError(
        f"review_id {review_id!r} already names a review of another user or item; choose another"
    )


def check_state_size(review_id: str, state: bytes) -> None:
    """Raise ``StoreError`` for a state above 16 MiB: such a value would stall every other client of a server."""
    if len(state) > MAX_STATE_BYTES:
        raise StoreError(
            f"state of review {review_id!r} has {len(state)} bytes, more than the {MAX_STATE_BYTES} allowed: "
            "use a smaller codec or fewer tokens"
        )
