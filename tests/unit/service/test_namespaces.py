"""What a store that cannot serve a bundle is said to lack, and the remedy."""

from dataclasses import replace

import pytest

from ubert_model.states import Namespace
from ubert_service.reading.namespaces import absence_of

WANTED = Namespace(version="0a", encoder_digest="e", codec="pq1", state_dim=8, max_length=16)
OTHER_CODEC = replace(WANTED, version="0b", codec="int8")
OTHER_BUNDLE = replace(WANTED, version="0c", encoder_digest="f", codec="int8")


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ([OTHER_BUNDLE, OTHER_CODEC], "it has them under int8: use --codec int8, or `ubert precompute` the reviews"),
        ([OTHER_BUNDLE], "it holds 0c (int8): correct --bundle or --store, or `ubert precompute` the reviews"),
        ([], "it holds none at all: correct --bundle or --store, or `ubert precompute` the reviews"),
    ],
)
def test_a_store_without_the_states_is_said_to_hold_others(held: list[Namespace], message: str) -> None:
    assert str(absence_of(WANTED, held)) == f"the store has no states of version 0a under codec pq1; {message}"


def test_a_store_with_the_states_lacks_nothing() -> None:
    assert absence_of(WANTED, [OTHER_BUNDLE, WANTED]) is None
