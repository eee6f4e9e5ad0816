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
    users = IdTable(["Zoe", "adam", "Bob", "ADA", "zed", "Adam"])
    identities = Identities(users=users, items=IdTable([]), domains=IdTable(["d"]), item_domains={}, default_domain="d")
    directory = EntityDirectory(identities=identities, residents=cast("Residents", NoReviews()))
    assert [one.identifier for one in directory.users(prefix, limit=limit)] == found
