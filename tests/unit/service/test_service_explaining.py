"""Which two reviews the heat map of an explanation shows: those whose words attend most to each other."""

from collections.abc import Mapping
from typing import cast

import numpy as np
import pytest

from ubert_model.review import ReviewEntry
from ubert_model.states import FloatMatrix
from ubert_service.explaining.explain import HeatMap, _heat_map
from ubert_service.explaining.explainer_graph import PairParts
from ubert_service.explaining.review_texts import NO_WORDS, ReadText
from ubert_service.reading.histories import PairHistories
from ubert_service.scoring.evidence import Evidence

ROWS = {"u0": 2, "u1": 1, "i0": 1, "i1": 2}
OF_WORDS = {name: ReadText(text="words", spans=[(0, 5)] * rows) for name, rows in ROWS.items()}


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
    parts = parts_with_strongest(mutual)
    heat_map = heat_map_of(parts, OF_WORDS)
    assert (heat_map.user_review_id, heat_map.item_review_id) == shown
    of_user, of_item = (
        {"u0": slice(0, 2), "u1": slice(2, 3)}[shown[0]],
        {"i0": slice(0, 1), "i1": slice(1, 3)}[shown[1]],
    )
    np.testing.assert_array_equal(heat_map.user_attention, parts.user_attention[of_user, of_item])
    np.testing.assert_array_equal(heat_map.item_attention, parts.item_attention[of_item, of_user])


@pytest.mark.parametrize(
    ("mutual", "texts", "shown"),
    [
        ((1, 1), OF_WORDS | {"u0": ReadText(text="words", spans=[(0, 5), NO_WORDS])}, ("u0", "i0")),  # [SEP] of u0
        ((1, 2), OF_WORDS | {"i1": ReadText(text="words", spans=[(0, 5), NO_WORDS])}, ("u0", "i0")),  # [SEP] of i1
        ((0, 1), {}, ("u0", "i0")),  # [CLS] of u0 and of i1: known as the first rows, also without texts
        ((1, 2), {}, ("u0", "i1")),
    ],
)
def test_attention_of_special_tokens_does_not_choose_the_heat_map(
    mutual: tuple[int, int], texts: Mapping[str, ReadText], shown: tuple[str, str]
) -> None:
    heat_map = heat_map_of(parts_with_strongest(mutual), texts)
    assert (heat_map.user_review_id, heat_map.item_review_id) == shown


def parts_with_strongest(mutual: tuple[int, int]) -> PairParts:
    """Attention that is mostly to the row of i1 that attends to nothing, but mutual at one row and column."""
    user_attention = matrix([0.1, 0.1, 0.8], [0.1, 0.1, 0.8], [0.1, 0.1, 0.8])
    item_attention = matrix([0.4, 0.3, 0.3], [0.3, 0.4, 0.3], [0.0, 0.0, 0.0])
    user_attention[mutual], item_attention[mutual[::-1]] = 0.9, 0.9
    empty = np.zeros(0, dtype=np.float32)
    return PairParts(0.0, empty, empty, user_attention, item_attention)


def heat_map_of(parts: PairParts, texts: Mapping[str, ReadText]) -> HeatMap:
    empty = np.zeros(0, dtype=np.float32)
    evidence = Evidence(
        histories=cast("PairHistories", None),
        user=reviews("u0", "u1"),
        item=reviews("i0", "i1"),
        user_residuals=empty,
        item_residuals=empty,
    )
    states = {name: np.zeros((rows, 4), dtype=np.float32) for name, rows in ROWS.items()}
    return _heat_map(evidence, states, parts, texts)
