"""Statistics of a review table as in the paper's Table 1, and the number of users that its domains share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.table import Table

Codes = NDArray[np.int64]

MOST_LINES = 40
MOST_COLUMNS = 8
"""Most domains that a table for a terminal shows; Yelp's categories make over a thousand."""


@dataclass(frozen=True, kw_only=True)
class DomainStatistics:
    """One line of Table 1. ``pretraining_reviews`` counts what the domain's users wrote in all other domains."""

    domain: str
    users: int
    items: int
    reviews: int
    pretraining_reviews: int


@dataclass(frozen=True, kw_only=True)
class CorpusStatistics:
    """Statistics of a whole review table.

    ``shared_users[a][b]`` is the number of users with reviews in both the a-th and the b-th of ``domains``; its
    diagonal holds the number of users of each domain.
    """

    users: int
    items: int
    reviews: int
    domains: tuple[DomainStatistics, ...]
    shared_users: tuple[tuple[int, ...], ...]

    @classmethod
    def of_file(cls, path: Path) -> Self:
        """Compute the statistics of a review table. Reads three of its columns, never its texts."""
        from scipy.sparse import csr_array  # noqa: PLC0415  # importing it takes half a second

        read = ["user", "item", "domain"]
        columns = pq.read_table(path, columns=read, read_dictionary=read)
        (users, user_names), (items, item_names), (domains, domain_names) = (_codes(columns[name]) for name in read)
        # Sparse, because Yelp's categories make over a thousand domains, and few of the pairs of a domain and a user
        # have a review. A csr_array sums the ones of equal pairs.
        one_each = np.ones(len(users), dtype=np.int64)
        by_user = csr_array((one_each, (domains, users)), shape=(len(domain_names), len(user_names)))
        by_item = csr_array((one_each, (domains, items)), shape=(len(domain_names), len(item_names)))
        is_active = csr_array((np.ones_like(by_user.data), by_user.indices, by_user.indptr), shape=by_user.shape)
        reviews = by_user.sum(axis=1)
        by_domain_users = is_active @ np.bincount(users, minlength=len(user_names))  # in all domains
        lines = [
            DomainStatistics(
                domain=name,
                users=int(np.diff(by_user.indptr)[code]),
                items=int(np.diff(by_item.indptr)[code]),
                reviews=int(reviews[code]),
                pretraining_reviews=int(by_domain_users[code] - reviews[code]),
            )
            for code, name in enumerate(domain_names)
        ]
        return cls(
            users=len(user_names),
            items=len(item_names),
            reviews=len(users),
            domains=tuple(lines),
            shared_users=tuple(tuple(line) for line in (is_active @ is_active.T).toarray().tolist()),
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
    """The statistics laid out like Table 1, for a terminal; of very many domains the largest."""
    shown = _largest(statistics, MOST_LINES)
    table = Table(title="Reviews by domain", caption=_caption(statistics, shown))
    table.add_column("Domain")
    for heading in ("#Users", "#Items", "#Reviews", "#Reviews by its users in other domains"):
        table.add_column(heading, justify="right")
    for line in (statistics.domains[code] for code in shown):
        counts = (line.users, line.items, line.reviews, line.pretraining_reviews)
        table.add_row(line.domain, *(f"{count:,}" for count in counts))
    table.add_section()
    table.add_row("all", f"{statistics.users:,}", f"{statistics.items:,}", f"{statistics.reviews:,}", "")
    return table


def shared_users_table(statistics: CorpusStatistics) -> Table:
    """The number of users that each two domains share, for a terminal; of many domains the largest."""
    shown = _largest(statistics, MOST_COLUMNS)
    table = Table(title="Users shared between domains", caption=_caption(statistics, shown))
    table.add_column("")
    for code in shown:
        table.add_column(statistics.domains[code].domain, justify="right")
    for code in shown:
        counts = statistics.shared_users[code]
        table.add_row(statistics.domains[code].domain, *(f"{counts[other]:,}" for other in shown))
    return table


def _largest(statistics: CorpusStatistics, count: int) -> list[int]:
    """The ``count`` domains with the most reviews, as indices in the order of their names."""
    by_size = sorted(range(len(statistics.domains)), key=lambda code: -statistics.domains[code].reviews)
    return sorted(by_size[:count])


def _caption(statistics: CorpusStatistics, shown: list[int]) -> str | None:
    total = len(statistics.domains)
    return f"the largest {len(shown)} of {total:,} domains; report.json has all" if len(shown) < total else None


def _codes(column: pa.ChunkedArray) -> tuple[Codes, list[str]]:
    """Encode a dictionary-encoded column as indices into the sorted list of its distinct strings."""
    unified = column.unify_dictionaries().combine_chunks()
    names: list[str] = unified.dictionary.to_pylist()
    order = sorted(range(len(names)), key=names.__getitem__)
    rank = np.empty(len(names), dtype=np.int64)
    rank[order] = np.arange(len(names))
    return rank[unified.indices.to_numpy()], [names[code] for code in order]
