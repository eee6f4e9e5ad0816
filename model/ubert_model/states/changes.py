"""The change feed of a namespace, by which readers invalidate their copies of its reviews.

Every write ends by announcing eight-byte marks of the user, the item and the identifier of each review that it touched.
A mark is a digest: it reveals no name, but whoever keeps a copy can tell that the copy is stale.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple, Self

from ubert_model.errors import CorruptStateError, InputError
from ubert_model.identifiers import identifier_bytes
from ubert_model.review import ReviewEntry, Side

REMEMBERED_CHANGES = 4_096
"""Announcements that a feed keeps; a reader that is further behind starts over."""
_MARK_BYTES = 8
_REVISION_PATTERN = r"^([0-9]{1,20})-([0-9]{1,20})$"


class Revision(NamedTuple):
    """A position in a feed. Later positions are greater; positions of different feeds are unrelated."""

    major: int
    minor: int = 0

    def __str__(self) -> str:
        return f"{self.major}-{self.minor}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Inverse of ``str``. Raises ``InputError``."""
        found = re.fullmatch(_REVISION_PATTERN, text)
        if found is None:
            raise InputError(
                f"revision {text[:64]!r} is malformed: give one that a write returned, such as '1718000000000-0'"
            )
        return cls(int(found[1]), int(found[2]))


@dataclass(frozen=True, kw_only=True)
class Changes:
    """The changes since a revision, up to and including ``revision``.

    ``marks`` None: anything may have changed. ``revision`` None: the feed cannot be followed now, so nothing that is
    read may be cached. ``history``: while it stays the same, the store has lost nothing. If it differs, as after a
    failover, earlier reads may be of writes that are lost without any announcement.
    """

    revision: Revision | None
    marks: frozenset[bytes] | None
    history: str = ""


def entity_mark(side: Side, entity: str) -> bytes:
    """The mark of one user's or one item's review list."""
    return _mark(side, entity)


def state_mark(review_id: str) -> bytes:
    """The mark of one review's states."""
    return _mark("state", review_id)


def marks_of(entries: Iterable[ReviewEntry]) -> set[bytes]:
    """The marks of everything that a write of these reviews touches."""
    return {
        mark
        for entry in entries
        for mark in (state_mark(entry.review_id), *(entity_mark(side, side.entity(entry)) for side in Side))
    }


def pack_marks(marks: Iterable[bytes]) -> bytes:
    """An announcement of these marks, as bytes."""
    return b"".join(sorted(marks))


def unpack_marks(announcement: bytes | memoryview) -> set[bytes]:
    """Inverse of :func:`pack_marks`. Raises ``CorruptStateError``."""
    if len(announcement) % _MARK_BYTES:
        raise CorruptStateError(
            f"an announced change of {len(announcement)} bytes is damaged: it must be marks of {_MARK_BYTES} bytes each"
        )
    return {bytes(announcement[first : first + _MARK_BYTES]) for first in range(0, len(announcement), _MARK_BYTES)}


def _mark(kind: str, identifier: str) -> bytes:
    return blake2b(identifier_bytes(identifier), digest_size=_MARK_BYTES, person=kind.encode()).digest()
