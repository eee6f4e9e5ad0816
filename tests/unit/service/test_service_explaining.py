"""Which two reviews the heat map of an explanation shows."""

from typing import cast

import numpy as np
import pytest

from ubert_model.states import FloatMatrix, ReviewEntry
from ubert_service.explaining.explain import _heat_map
from ubert_service.explaining.explainer_graph import PairParts
from ubert_service.reading.histories import PairHistories
from ubert_service.scoring.evidence import Evidence

ROWS = {"u0": 2, "u1": 1, "i0": 1, "i1": 2}


def reviews(*names: str) -> tuple[ReviewEntry, ...]:
    return tuple(
        ReviewEntry(review_id=name, user="u", item="i", rating=3.0, timestamp=0, rows=ROWS[name]) for name in names
    )


def matrix(*rows: list[float]) -> FloatMatrix:
    return np.array(rows, dtype=np.float32)


@pytest.mark.parametrize(
    ("mutual", "shown"),
    [((0, 0), ("u0", "i0")), ((1, 1), ("u0", "i1")), ((2, 0), ("u1", "i0")), ((2, 2), ("u1", "i1"))],
)
def test_the_heat_map_shows_the_two_reviews_that_attend_most_to_each_other(
    mutual: tuple[int, int], shown: tuple[str, str]
) -> None:
    user_attention = matrix(
        [0.1, 0.1, 0.8], [0.1, 0.1, 0.8], [0.1, 0.1, 0.8]
    )  # mostly to the row of i1 that attends to nothing
    item_attention = matrix([0.4, 0.3, 0.3], [0.3, 0.4, 0.3], [0.0, 0.0, 0.0])
    user_attention[mutual], item_attention[mutual[::-1]] = 0.9, 0.9
    empty = np.zeros(0, dtype=np.float32)
    evidence = Evidence(
        histories=cast("PairHistories", None),
        user=reviews("u0", "u1"),
        item=reviews("i0", "i1"),
        user_residuals=empty,
        item_residuals=empty,
    )
    states = {name: np.zeros((rows, 4), dtype=np.float32) for name, rows in ROWS.items()}
    parts = PairParts(0.0, empty, empty, user_attention, item_attention)
    heat_map = _heat_map(evidence, states, parts)
    assert (heat_map.user_review_id, heat_map.item_review_id) == shown
    of_user, of_item = (
        {"u0": slice(0, 2), "u1": slice(2, 3)}[shown[0]],
        {"i0": slice(0, 1), "i1": slice(1, 3)}[shown[1]],
    )
    np.testing.assert_array_equal(heat_map.user_attention, user_attention[of_user, of_item])
    np.testing.assert_array_equal(heat_map.item_attention, item_attention[of_item, of_user])
