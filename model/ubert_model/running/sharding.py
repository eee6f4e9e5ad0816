"""Dividing work among processes or machines that do not communicate."""

import re
from dataclasses import dataclass
from typing import Self

from ubert_model.validation import require

_PATTERN = re.compile(r"(\d{1,6})/(\d{1,6})")


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Shard ``number`` of ``shards``, counted from 1. Raises ``ConfigError`` for a number out of range."""

    number: int = 1
    shards: int = 1

    def __post_init__(self) -> None:
        require(1 <= self.number <= self.shards, "shard", str(self), "count from 1 to the number of shards, as in 3/8")

    def __str__(self) -> str:
        return f"{self.number}/{self.shards}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``NUMBER/SHARDS``, as in ``3/8``. Raises ``ConfigError`` for anything else."""
        found = _PATTERN.fullmatch(text)
        require(found is not None, "shard", text, "write the shard and the number of shards, as in 3/8")
        assert found is not None
        return cls(number=int(found[1]), shards=int(found[2]))

    def holds(self, digest: int) -> bool:
        """Does whatever has this digest belong to this shard? It belongs to exactly one of the ``shards``.

        A digest, unlike a position, keeps a thing in its shard when others come and go.
        """
        return digest % self.shards == self.number - 1
