"""Dividing reviews among processes or machines that know nothing of each other."""

import re
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ubert_model.config import require
from ubert_training.reviews.table import ReviewTable

_FORM = re.compile(r"(\d{1,6})/(\d{1,6})")


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Share ``number`` of ``shards``, counted from 1. Raises ``ConfigError`` for a number outside."""

    number: int = 1
    shards: int = 1

    def __post_init__(self) -> None:
        require(1 <= self.number <= self.shards, "shard", str(self), "number the shards from 1, as 3/8")

    def __str__(self) -> str:
        return f"{self.number}/{self.shards}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``3/8``. Raises ``ConfigError`` for anything else."""
        found = _FORM.fullmatch(text)
        require(found is not None, "shard", text, "write the share and the number of shares, as 3/8")
        assert found is not None
        return cls(number=int(found[1]), shards=int(found[2]))

    def of(self, table: ReviewTable, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of ``rows`` that fall into this share; every row falls into exactly one share of a division.

        By the review's identifier, which is a digest of it: so a review stays in its share when the table grows.
        """
        if self.shards == 1:
            return rows
        shares = np.array([int(table.review_id[row], 16) % self.shards for row in rows.tolist()], dtype=np.int64)
        mine: NDArray[np.int64] = rows[shares == self.number - 1]
        return mine
