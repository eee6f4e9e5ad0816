"""Statistics of a review table as in the paper's Table 1, and how its domains share their users."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.table import Table

Codes = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class DomainStatistics:
    """One line of Table 1. ``pretraining_reviews`` are those the domain's users wrote in all other domains."""

    domain: str
    users: int
    items: int
    reviews: int
    pretraining_reviews: int


@dataclass(frozen=True, kw_only=True)
class CorpusStatistics:
    """Statistics of a whole review table.

    ``shared_users[a][b]`` is the number of users with reviews in both the a-th and the b-th domain, in the
    order of ``domains``; its diagonal is the number of users of each.
    """

    users: int
    items: int
    reviews: int
    domains: tuple[DomainStatistics, ...]
    shared_users: tuple[tuple[int, ...], ...]

    @classmethod
    def of_file(cls, path: Path) -> Self:
        """Read three columns of a review table, never its texts."""
        from scipy.sparse import csr_array  # noqa: PLC0415  # half a second, for whoever imports

        read = ["user", "item", "domain"]
        columns = pq.read_table(path, columns=read, read_dictionary=read)
        (users, user_names), (items, item_names), (domains, domain_names) = (_codes(columns[name]) for name in read)
        # Few of all pairs of a domain and a user have a review: Yelp's categories are over a thousand domains.
        one_each = np.ones(len(users), dtype=np.int64)
        wrote = csr_array((one_each, (domains, users)), shape=(len(domain_names), len(user_names)))
        written_of = csr_array((one_each, (domains, items)), shape=(len(domain_names), len(item_names)))
        present = csr_array((np.ones_like(wrote.data), wrote.indices, wrote.indptr), shape=wrote.shape)
        reviews = wrote.sum(axis=1)
        of_these_users = present @ np.bincount(users, minlength=len(user_names))  # in whatever domain
        lines = [
            DomainStatistics(
                domain=name,
                users=int(np.diff(wrote.indptr)[code]),
                items=int(np.diff(written_of.indptr)[code]),
                reviews=int(reviews[code]),
                pretraining_reviews=int(of_these_users[code] - reviews[code]),
            )
            for code, name in enumerate(domain_names)
        ]
        return cls(
            users=len(user_names),
            items=len(item_names),
            reviews=len(users),
            domains=tuple(lines),
            shared_users=tuple(tuple(line) for line in (present @ present.T).toarray().tolist()),
        )

    @classmethod
    def of_json(cls, stored: dict[str, Any]) -> Self:
        return cls(
            users=stored["users"],
            items=stored["items"],
            reviews=stored["reviews"],
            domains=tuple(DomainStatistics(**line) for line in stored["domains"]),
            shared_users=tuple(tuple(line) for line in stored["shared_users"]),
        )


def statistics_table(statistics: CorpusStatistics) -> Table:
    """Lay out the statistics like Table 1, for a terminal."""
    table = Table(title="Reviews by domain")
    table.add_column("Domain")
    for heading in ("#Users", "#Items", "#Reviews", "#Pre-training reviews"):
        table.add_column(heading, justify="right")
    for line in statistics.domains:
        counts = (line.users, line.items, line.reviews, line.pretraining_reviews)
        table.add_row(line.domain, *(f"{count:,}" for count in counts))
    table.add_section()
    table.add_row("all", f"{statistics.users:,}", f"{statistics.items:,}", f"{statistics.reviews:,}", "")
    return table


def shared_users_table(statistics: CorpusStatistics) -> Table:
    """Lay out how many users each two domains share, for a terminal."""
    table = Table(title="Users shared between domains")
    table.add_column("")
    for line in statistics.domains:
        table.add_column(line.domain, justify="right")
    for line, counts in zip(statistics.domains, statistics.shared_users, strict=True):
        table.add_row(line.domain, *(f"{count:,}" for count in counts))
    return table


def _codes(column: pa.ChunkedArray) -> tuple[Codes, list[str]]:
    """Number the distinct strings of a dictionary-encoded column in their order."""
    unified = column.unify_dictionaries().combine_chunks()
    names: list[str] = unified.dictionary.to_pylist()
    order = sorted(range(len(names)), key=names.__getitem__)
    rank = np.empty(len(names), dtype=np.int64)
    rank[order] = np.arange(len(names))
    return rank[unified.indices.to_numpy()], [names[code] for code in order]
