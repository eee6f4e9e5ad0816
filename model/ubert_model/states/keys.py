"""The keys of a store. Each begins with the state version, which covers everything that determines a state."""

import re
from hashlib import blake2b
from urllib.parse import unquote

from ubert_model.errors import InputError
from ubert_model.identifiers import identifier_bytes
from ubert_model.review import ReviewEntry, Side

_VERSION = re.compile("[0-9a-f]{16}")


def version_bytes(version: str) -> bytes:
    """The 8 bytes of a version. Raises ``InputError`` unless it is 16 lower-case hexadecimal characters.

    Strict for safety: a version goes unescaped into the pattern by which a namespace is dropped.
    """
    if not _VERSION.fullmatch(version):
        raise InputError(f"state version {version!r} is not 16 lower-case hexadecimal characters")
    return bytes.fromhex(version)


class RedisKeys:
    """``ubert:<version>:`` and then ``state:<review>``, ``text:<review>``, ``user:<user>``, ``item:<item>``,
    ``claim:<review>``, ``held:<holder>``, ``shards`` or ``changes``.

    Colons in identifiers are percent-escaped, so that keys are unambiguous, and braces, because a cluster puts all keys
    with the same text in braces on one node.
    """

    NAMESPACES = b"ubert:namespaces"
    CANDIDATES = b"ubert:candidates"
    _ESCAPES = str.maketrans({char: f"%{ord(char):02X}" for char in "%:{}"})

    def __init__(self, version: str) -> None:
        self._prefix = f"ubert:{version_bytes(version).hex()}:"
        self.shards = f"{self._prefix}shards".encode()

    def state(self, review_id: str) -> bytes:
        return self._key("state", review_id)

    def text(self, review_id: str) -> bytes:
        return self._key("text", review_id)

    def reviews(self, side: Side, entity: str) -> bytes:
        return self._key(side, entity)

    def claim(self, review_id: str) -> bytes:
        return self._key("claim", review_id)

    def held(self, holder: str) -> bytes:
        return self._key("held", holder)

    @property
    def changes(self) -> bytes:
        return f"{self._prefix}changes".encode()

    def states_pattern(self) -> str:
        return f"{self._prefix}state:*"

    def texts_pattern(self) -> str:
        return f"{self._prefix}text:*"

    def held_pattern(self) -> str:
        return f"{self._prefix}held:*"

    def reviews_pattern(self, side: Side) -> str:
        return f"{self._prefix}{side}:*"

    @staticmethod
    def name(key: bytes) -> str:
        """The user, item, review or holder that a key names."""
        return unquote(key.decode().rsplit(":", 1)[1], errors="strict")

    def _key(self, kind: str, identifier: str) -> bytes:
        identifier_bytes(identifier)
        return f"{self._prefix}{kind}:{identifier.translate(self._ESCAPES)}".encode()


class LmdbKeys:
    """The 8 bytes of the version, one or two bytes of kind, then identifiers; at most 283 of the 511 bytes allowed.

    Each line of a list has its own key: the length of the entity's name, so that no name is the prefix of another; that
    name; and a digest of the review identifier, because two full identifiers would not fit.

    A drop deletes a namespace in key order, so kinds are ordered: first the changes, so that followers notice at once,
    then the finished shards, which claim that it is complete, then texts, holders, lists, states, and the description
    last. A change is keyed by the number of its transaction; key 0 holds the oldest revision that can be followed.
    """

    VERSION_BYTES = 8
    _ENTITY_START = VERSION_BYTES + 3
    CANDIDATES = b"ubertset"
    """Takes the place of a version, but is none: a set may have the very key of a description."""
    _CHANGE = b"\x00\x00"
    _SHARD = b"\x00\x01"
    _TEXT = b"\x00\x02"
    _HELD = b"\x00\x03"
    _USER_LINE = b"\x01"
    _ITEM_LINE = b"\x02"
    _STATE = b"\x03"
    _DESCRIPTION = b"\x04"

    def __init__(self, version: str) -> None:
        self.namespace = version_bytes(version)
        self.shards = self.namespace + self._SHARD
        self.states = self.namespace + self._STATE
        self.holds = self.namespace + self._HELD
        self.description = self.namespace + self._DESCRIPTION
        self.changes = self.namespace + self._CHANGE
        self.feed_start = self.change(0)

    def state(self, review_id: str) -> bytes:
        return self.states + identifier_bytes(review_id)

    def text(self, review_id: str) -> bytes:
        return self.namespace + self._TEXT + identifier_bytes(review_id)

    def held(self, holder: str) -> bytes:
        return self.holds + identifier_bytes(holder)

    def holder(self, held: bytes) -> str:
        """The holder that a key of :meth:`held` names."""
        return held[len(self.holds) :].decode()

    def review(self, state: bytes) -> str:
        """The review that a state's key names."""
        return state[len(self.states) :].decode()

    def shard(self, packed: bytes) -> bytes:
        return self.shards + blake2b(packed, digest_size=16).digest()

    def change(self, transaction: int) -> bytes:
        return self.changes + transaction.to_bytes(8, "big")

    def lists(self, side: Side) -> bytes:
        """The prefix of every line of every list of one side."""
        return self.namespace + (self._USER_LINE if side is Side.USER else self._ITEM_LINE)

    def reviews(self, side: Side, entity: str) -> bytes:
        """The prefix of every line of one list."""
        encoded = identifier_bytes(entity)
        return self.lists(side) + len(encoded).to_bytes(2, "big") + encoded

    def line(self, side: Side, entry: ReviewEntry) -> bytes:
        digest = blake2b(identifier_bytes(entry.review_id), digest_size=16).digest()
        return self.reviews(side, side.entity(entry)) + digest

    @classmethod
    def candidates(cls, name: str) -> bytes:
        return cls.CANDIDATES + identifier_bytes(name)

    @classmethod
    def list_of(cls, line: bytes) -> bytes:
        """The ``reviews`` prefix of a line's key."""
        return line[: cls._ENTITY_START + int.from_bytes(line[cls.VERSION_BYTES + 1 : cls._ENTITY_START], "big")]

    @classmethod
    def entity(cls, reviews: bytes) -> str:
        """The user or item that a ``reviews`` prefix names."""
        return reviews[cls._ENTITY_START :].decode()
