"""Id tables: each known identifier has a row of its own, every other is row 0, whatever the order of the reviews."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubert_model.errors import BundleError
from ubert_model.ids import Identities, IdTable

identifiers = st.lists(st.text(max_size=5), max_size=10)

IDENTITIES = Identities(
    users=IdTable.of(["u2", "u1"]),
    items=IdTable.of(["i1", "i2", "i3"]),
    domains=IdTable.of(["Music", "Toys"]),
    item_domains={"i1": "Toys", "i2": "Music", "i3": "Garden"},
    default_domain="Music",
)


@given(names=identifiers, other=st.text(max_size=5))
def test_known_identifiers_have_rows_from_one_on_and_all_others_row_zero(names: list[str], other: str) -> None:
    table = IdTable.of(names)
    assert sorted(table.row(name) for name in set(names)) == list(range(1, len(table) + 1))
    assert (table.row(other) == 0) is (other not in table)
    assert (other in table) is (other in names)


@given(names=identifiers, random=st.randoms(use_true_random=False))
def test_a_table_depends_neither_on_order_nor_on_repetition(names: list[str], random: Any) -> None:
    shuffled = names * 2
    random.shuffle(shuffled)
    assert IdTable.of(shuffled).identifiers == IdTable.of(names).identifiers


def test_a_table_keeps_the_order_it_is_given() -> None:
    assert [IdTable(["b", "a"]).row(name) for name in "ab"] == [2, 1]


def test_an_item_has_the_row_of_its_domain_or_if_unknown_of_the_default_domain() -> None:
    assert IDENTITIES.domain_row("i1") == IDENTITIES.domains.row("Toys")
    assert IDENTITIES.domain_row("never seen") == IDENTITIES.domains.row("Music")
    assert IDENTITIES.domain_row("i3") == 0  # of a domain that has no row


def test_identities_survive_json() -> None:
    restored = Identities.from_json(json.loads(json.dumps(IDENTITIES.to_json())))
    assert restored.to_json() == IDENTITIES.to_json()
    for item in ("i1", "i2", "i3", "never seen"):
        assert restored.domain_row(item) == IDENTITIES.domain_row(item)


@pytest.mark.parametrize(
    "change",
    [{"users": 3}, {"items": ["i1"]}, {"item_domains": [1, 2, 9]}, {"item_domains": None}],
    ids=["no list", "fewer items", "no such domain", "no domains"],
)
def test_identities_of_another_shape_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match="export the bundle again"):
        Identities.from_json({**IDENTITIES.to_json(), **change})


@pytest.mark.parametrize("name", IDENTITIES.to_json())
def test_identities_without_one_of_their_fields_are_refused_by_its_name(name: str) -> None:
    values = IDENTITIES.to_json()
    del values[name]
    with pytest.raises(BundleError, match=name):
        Identities.from_json(values)
