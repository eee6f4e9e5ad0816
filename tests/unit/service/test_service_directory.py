"""Search of users and items by a prefix of their identifier."""

from collections.abc import Sequence
from typing import cast

import pytest

from ubert_model.ids import Identities, IdTable
from ubert_service.reading.histories import ReviewList
from ubert_service.resident.residents import Residents
from ubert_service.reviews.directory import EntityDirectory


class NoReviews:
    """Residents in which nobody has a review."""

    def review_lists(self, users: Sequence[str], items: Sequence[str], *, latest: bool) -> list[ReviewList]:
        assert latest
        return cast("list[ReviewList]", [[] for _ in (*users, *items)])


def directory() -> EntityDirectory:
    users = IdTable(["Zoe", "adam", "Bob", "ADA", "zed", "Adam"])
    identities = Identities(users=users, items=IdTable([]), domains=IdTable(["d"]), item_domains={}, default_domain="d")
    return EntityDirectory(identities=identities, residents=cast("Residents", NoReviews()))


@pytest.mark.parametrize(
    ("prefix", "limit", "found"),
    [
        ("ad", 9, ["ADA", "Adam", "adam"]),
        ("AD", 2, ["ADA", "Adam"]),
        ("z", 9, ["zed", "Zoe"]),
        ("", 9, ["ADA", "Adam", "adam", "Bob", "zed", "Zoe"]),
        ("adam", 1, ["adam"]),
    ],
)
def test_a_search_by_prefix_ignores_case_and_orders_what_it_finds_alphabetically(
    prefix: str, limit: int, found: list[str]
) -> None:
    assert [one.identifier for one in directory().users(prefix, limit=limit).found] == found


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("prefix", "found"),
    [
        ("", ["ADA", "Adam", "adam", "Bob", "zed", "Zoe"]),
        ("adam", ["adam", "Adam"]),
        ("ad", ["ADA", "Adam", "adam"]),
        ("x", []),
    ],
)
def test_pages_of_a_search_together_are_all_that_it_finds_in_order(prefix: str, found: list[str], limit: int) -> None:
    names: list[str] = []
    page = directory().users(prefix, limit=limit)
    while page.next_after is not None:
        assert len(page.found) == limit
        names += [one.identifier for one in page.found]
        page = directory().users(prefix, limit=limit, after=page.next_after)
    assert [*names, *(one.identifier for one in page.found)] == found
