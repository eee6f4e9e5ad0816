"""What a reader that keeps copies of a store's reviews must be told: the feed of changes of one namespace.

Every write ends by announcing, as eight-byte marks, the user, the item and the name of each review that it touched.
A mark names nobody: it only lets whoever keeps a copy of the thing find that copy.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple, Self

from ubert_model.errors import CorruptStateError, InputError
from ubert_model.states.keys import Side, identifier_bytes
from ubert_model.states.review import ReviewEntry

REMEMBERED_CHANGES = 4_096
"""Announcements that a feed keeps; a reader that is further behind starts anew."""
_MARK_BYTES = 8
_REVISION_PATTERN = r"^([0-9]{1,20})-([0-9]{1,20})$"


class Revision(NamedTuple):
    """A position in a feed. Later positions are greater; positions of two feeds have nothing to do with each other."""

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
                f"revision {text[:64]!r} is not one that a write was answered with, such as '1718000000000-0'"
            )
        return cls(int(found[1]), int(found[2]))


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What has happened since a revision, up to and including ``revision``.

    ``marks`` None: anything may have changed. ``revision`` None: the feed cannot be followed now, so that nothing
    that is read may be kept. ``history``: while it is the same, the store has lost nothing that could be read from it.
    With another, as after a failover, what was read before may be of writes that are gone and that no change tells of.
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
    """The marks of all that a write of these reviews touches."""
    return {
        mark
        for entry in entries
        for mark in (state_mark(entry.review_id), *(entity_mark(side, side.entity(entry)) for side in Side))
    }


def pack_marks(marks: Iterable[bytes]) -> bytes:
    """An announcement."""
    return b"".join(sorted(marks))


def unpack_marks(announcement: bytes | memoryview) -> set[bytes]:
    """Inverse of :func:`pack_marks`. Raises ``CorruptStateError``."""
    if len(announcement) % _MARK_BYTES:
        raise CorruptStateError(f"an announced change of {len(announcement)} bytes is not made of whole marks")
    return {bytes(announcement[first : first + _MARK_BYTES]) for first in range(0, len(announcement), _MARK_BYTES)}


def _mark(kind: str, identifier: str) -> bytes:
    return blake2b(identifier_bytes(identifier), digest_size=_MARK_BYTES, person=kind.encode()).digest()
