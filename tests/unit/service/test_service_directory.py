"""Search by the beginning of an identifier, among identifiers of any case."""

from collections.abc import Sequence
from typing import cast

import pytest

from ubert_model.ids import Identities, IdTable
from ubert_model.states import Namespace, ReviewEntry, StateStore
from ubert_service.reviews.directory import EntityDirectory

NAMESPACE = Namespace(version="0" * 16, encoder_digest="any", codec="fp32", state_dim=8, max_length=16)


class Unreviewed:
    """A store in which nobody has a review."""

    def user_reviews(self, version: str, users: Sequence[str]) -> list[list[ReviewEntry]]:
        return [[] for _ in users]

    item_reviews = user_reviews

    def namespaces(self) -> list[Namespace]:
        return [NAMESPACE]


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
def test_whoever_begins_so_in_any_case_is_found_in_one_order(prefix: str, limit: int, found: list[str]) -> None:
    users = IdTable(["Zoe", "adam", "Bob", "ADA", "zed", "Adam"])
    nobody = IdTable([])
    identities = Identities(users=users, items=nobody, domains=IdTable(["d"]), item_domains={}, default_domain="d")
    directory = EntityDirectory(identities=identities, namespace=NAMESPACE, store=cast("StateStore", Unreviewed()))
    assert [one.identifier for one in directory.users(prefix, limit=limit)] == found
