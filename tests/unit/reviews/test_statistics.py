"""Statistics as in the paper's Table 1, compared with counts by hand of a small table."""

import json
import tracemalloc
from dataclasses import asdict
from pathlib import Path

import pytest
from rich.console import Console

from ubert_training.reviews.statistics import CorpusStatistics, shared_users_table, statistics_table
from ubert_training.reviews.table import Review, ReviewTable

USER_ITEM_DOMAIN = [
    ("ann", "drum", "music"),
    ("ann", "flute", "music"),
    ("bob", "drum", "music"),
    ("ann", "lamp", "home"),
    ("cid", "lamp", "home"),
    ("bob", "sofa", "home"),
    ("bob", "lamp", "home"),
    ("cid", "rake", "garden"),
]
TABLE = ReviewTable.of(
    Review(user=user, item=item, rating=3, text=f"text {number}", domain=domain)
    for number, (user, item, domain) in enumerate(USER_ITEM_DOMAIN)
)


@pytest.fixture
def statistics(tmp_path: Path) -> CorpusStatistics:
    TABLE.save(tmp_path / "reviews.parquet")
    return CorpusStatistics.of_file(tmp_path / "reviews.parquet")


def test_users_items_and_reviews_are_counted_by_domain(statistics: CorpusStatistics) -> None:
    counted = {line.domain: (line.users, line.items, line.reviews) for line in statistics.domains}
    assert counted == {"garden": (1, 1, 1), "home": (3, 2, 4), "music": (2, 2, 3)}
    assert (statistics.users, statistics.items, statistics.reviews) == (3, 5, 8)


def test_pretraining_reviews_are_those_of_the_same_users_in_other_domains(statistics: CorpusStatistics) -> None:
    counted = {line.domain: line.pretraining_reviews for line in statistics.domains}
    assert counted == {"garden": 1, "home": 4, "music": 3}


def test_shared_users_are_counted_for_every_two_domains(statistics: CorpusStatistics) -> None:
    assert [line.domain for line in statistics.domains] == ["garden", "home", "music"]
    assert statistics.shared_users == ((1, 1, 0), (1, 3, 2), (0, 2, 2))


def test_an_empty_table_has_no_domains(tmp_path: Path) -> None:
    ReviewTable.of([]).save(tmp_path / "reviews.parquet")
    statistics = CorpusStatistics.of_file(tmp_path / "reviews.parquet")
    assert (statistics.users, statistics.reviews, statistics.domains) == (0, 0, ())


def test_statistics_survive_json(statistics: CorpusStatistics) -> None:
    assert CorpusStatistics.of_json(json.loads(json.dumps(asdict(statistics)))) == statistics


def test_the_tables_show_every_domain_and_count(statistics: CorpusStatistics) -> None:
    console = Console(width=100)
    with console.capture() as captured:
        console.print(statistics_table(statistics), shared_users_table(statistics))
    shown = [line.replace("│", " ").split() for line in captured.get().splitlines()]
    for row in ("garden 1 1 1 1", "home 3 2 4 4", "music 2 2 3 3", "all 3 5 8", "garden 1 1 0", "home 1 3 2"):
        assert row.split() in shown


def test_of_very_many_domains_the_tables_show_the_largest(tmp_path: Path) -> None:
    """Yelp's categories make over a thousand; all the pairs of them took 5 MB of terminal, and most of the import."""
    reviews = (
        Review(user="u", item=f"i{number}", rating=3, text=str(number), domain=f"d{number % 100}")
        for number in range(150)
    )
    ReviewTable.of(reviews).save(tmp_path / "reviews.parquet")
    statistics = CorpusStatistics.of_file(tmp_path / "reviews.parquet")
    by_domain, shared = statistics_table(statistics), shared_users_table(statistics)
    assert (by_domain.row_count, shared.row_count, len(shared.columns)) == (41, 8, 9)
    console = Console(width=200)
    with console.capture() as captured:
        console.print(by_domain, shared)
    shown = captured.get()
    assert "of 100 domains" in shown
    assert not {f"d{number}" for number in range(50, 100)} & set(shown.split())  # of one review, others have two


def test_memory_grows_with_the_reviews_and_not_with_domains_times_users(tmp_path: Path) -> None:
    """A count for every domain and user would take 21 GB for Yelp, at the end of its import."""
    table = ReviewTable.of(
        Review(user=f"u{number}", item=f"i{number % 100}", rating=3, text="", domain=f"d{number % 200}")
        for number in range(20_000)
    )
    table.save(tmp_path / "reviews.parquet")
    tracemalloc.start()
    try:
        found = CorpusStatistics.of_file(tmp_path / "reviews.parquet")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(line.reviews for line in found.domains) == 20_000
    assert peak < 200 * 20_000 * 8
