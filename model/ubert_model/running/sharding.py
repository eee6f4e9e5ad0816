"""Dividing work among processes or machines that know nothing of each other."""

import re
from dataclasses import dataclass
from typing import Self

from ubert_model.config import require

_FORM = re.compile(r"(\d{1,6})/(\d{1,6})")


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Share ``number`` of ``shards``, counted from 1. Raises ``ConfigError`` for a number outside."""

    number: int = 1
    shards: int = 1

    def __post_init__(self) -> None:
        require(
            1 <= self.number <= self.shards,
            "shard",
            str(self),
            "number the shards from 1 to as many as there are, as 3/8",
        )

    def __str__(self) -> str:
        return f"{self.number}/{self.shards}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``3/8``. Raises ``ConfigError`` for anything else."""
        found = _FORM.fullmatch(text)
        require(found is not None, "shard", text, "write the share and the number of shares, as 3/8")
        assert found is not None
        return cls(number=int(found[1]), shards=int(found[2]))

    def holds(self, digest: int) -> bool:
        """Does what has this digest fall into this share? It does into exactly one of a division.

        By a digest and not by its place, so that a thing stays in its share when others come and go.
        """
        return digest % self.shards == self.number - 1
