"""Which pairs have their states fetched together."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

from ubert_service.reading.histories import PairHistories
from ubert_service.scoring.engine import _fetches


def pair(*review_ids: str) -> PairHistories:
    """A pair whose user has these reviews, of 10 rows each, and whose item has none."""
    reviews = [SimpleNamespace(review_id=review_id, rows=10) for review_id in review_ids]
    return cast(
        PairHistories, SimpleNamespace(user=SimpleNamespace(selected=reviews), item=SimpleNamespace(selected=[]))
    )


def test_shared_reviews_count_once_and_a_pair_above_the_budget_is_fetched_alone() -> None:
    pairs = [pair("a", "b"), pair("b", "c"), pair("d"), pair("a", "b", "c", "d"), pair("a")]
    assert list(_fetches(pairs, 30)) == [pairs[:2], pairs[2:3], pairs[3:4], pairs[4:]]


def test_the_set_of_fetched_reviews_is_not_copied_for_each_pair() -> None:
    """Copying it would add a second to a ranking of a thousand candidates."""
    seen: list[Any] = []

    def pairs() -> Iterator[PairHistories]:
        for number in range(5):
            yield pair(f"a{number}", f"b{number}")
            seen.append(fetches.gi_frame.f_locals["fetched"])  # type: ignore[attr-defined]

    fetches = _fetches(cast(Any, pairs()), 1_000)
    assert len(list(fetches)) == 1
    assert all(fetched is seen[0] for fetched in seen)
