"""Review lists: what a pair may know of each side, and what is left of that without one review."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.rating_columns import rating_columns
from ubert_model.config import RatingScale, preset
from ubert_model.ids import IdTable
from ubert_model.rating.blend import BiasModel
from ubert_model.rating.curve import RatingCurve
from ubert_model.rating.deviations import ElsewhereRatings, SideBias, UsualDeviations
from ubert_model.states import FloatMatrix, ReviewEntry
from ubert_service.reading.histories import History, ReviewList, SideStatistics
from ubert_service.reading.inline import InlineText
from ubert_service.scoring.inline_encoding import encode_inline
from ubert_service.scoring.runtime import ActiveDevice

SUMMATION = 1e-12
"""Stars that sums over a few ratings may differ by if they are added up in another order."""
CURVE = RatingCurve.of_rises(RatingScale(), [0.3, 0.1, 0.8, 1.2])
SIDE = SideBias(curve=CURVE, mean=1.1, shrinkage=2.0)
BIAS = BiasModel(mean=3.5, intercept=0.0, user=SIDE, item=SIDE)
CONFIG = replace(preset("tiny"), max_reviews=3, max_length=12, max_rows=30)
NAMES = "abcdef"


def review(number: int, counterpart: str, rating: float, rows: int) -> ReviewEntry:
    """Number 0 is the newest. On both sides the counterpart has the same name, so that a list can be anybody's."""
    return ReviewEntry(
        review_id=f"r{number}",
        user=counterpart,
        item=counterpart,
        rating=rating,
        timestamp=1000 - number,
        rows=rows,
    )


def side_statistics() -> list[SideStatistics]:
    known = [review(number, name, 1.0 + number % 5, 1) for number, name in enumerate(2 * NAMES[:4])]
    ids = IdTable.of(NAMES[:4])
    of_others = rating_columns([replace(known[0], user="a"), known[1]], user_ids=ids)
    usual = UsualDeviations.of(
        rating_columns(known, user_ids=ids, item_ids=ids), (CURVE, CURVE), ElsewhereRatings.of(of_others, CURVE)
    )
    return [SideStatistics.of_users(usual, BIAS), SideStatistics.of_items(usual, BIAS)]


SIDES = pytest.mark.parametrize("statistics", side_statistics(), ids=["user", "item"])
ratings = st.tuples(st.sampled_from(NAMES), st.integers(1, 5).map(float), st.integers(0, 12))
review_lists = st.lists(ratings, max_size=12).map(
    lambda rated: [review(number, *one) for number, one in enumerate(rated)]
)


def list_of(reviews: list[ReviewEntry], statistics: SideStatistics, unrated: frozenset[str]) -> ReviewList:
    """The first of them brought along, where there is any without a rating."""
    brought = reviews[:4] if unrated else []
    return ReviewList.of("a", reviews[len(brought) :], statistics, CONFIG).with_inline(brought, unrated)


def assert_same(found: History, expected: History) -> None:
    assert (found.reviews, found.selected) == (expected.reviews, expected.selected)
    assert (found.sums.count, found.sums.elsewhere) == (expected.sums.count, expected.sums.elsewhere)
    assert found.sums.above_usual == pytest.approx(expected.sums.above_usual, abs=SUMMATION)
    assert found.residuals.tolist() == pytest.approx(expected.residuals.tolist(), abs=1e-6)
    assert found.is_rated == expected.is_rated


@SIDES
@given(reviews=review_lists, unrated=st.sets(st.sampled_from(["r0", "r2", "r3"])).map(frozenset))
def test_a_history_without_a_review_is_that_of_a_list_without_it(
    statistics: SideStatistics, reviews: list[ReviewEntry], unrated: frozenset[str]
) -> None:
    for counterpart in ("a", "nobody"):
        apart = list_of(reviews, statistics, unrated).without_counterpart(counterpart)
        kept = [one for one in reviews if one.item != counterpart]
        assert list(apart) == kept
        for left_out, found in zip(kept, apart.leave_one_out(kept), strict=True):
            # Told by its name alone whether it counts, so brought or stored makes no difference here.
            others = [one for one in kept if one is not left_out]
            alone = ReviewList("a", others, statistics, frozenset(), CONFIG, unrated)
            assert_same(found, alone.full_history)


@SIDES
@pytest.mark.parametrize("rating", [1.0, 5.0])
def test_without_its_only_rating_an_entity_is_a_stranger_to_the_last_digit(
    statistics: SideStatistics, rating: float
) -> None:
    (only,) = (review(0, "e", rating, 3),)
    (without,) = ReviewList.of("f", [only], statistics, CONFIG).leave_one_out([only])
    assert (without.reviews, without.selected, without.is_rated) == (0, (), False)
    assert float(SIDE.bias(without.sums)) == 0.0


def test_whom_only_ratings_of_other_domains_tell_of_is_rated() -> None:
    of_users, of_items = (ReviewList.of("a", [], statistics, CONFIG).full_history for statistics in side_statistics())
    assert (of_users.is_rated, of_items.is_rated) == (True, False)


@SIDES
def test_what_has_no_rating_lies_neither_above_nor_below_what_is_expected(statistics: SideStatistics) -> None:
    rated, silent = review(1, "b", 1.0, 3), review(0, "c", 1.0, 3)
    joined = (
        ReviewList.of("f", [rated], statistics, CONFIG)
        .with_inline([silent], frozenset({silent.review_id}))
        .full_history
    )
    assert [one.review_id for one in joined.selected] == [silent.review_id, rated.review_id]
    assert joined.residuals[0] == 0.0 != joined.residuals[1]


@SIDES
def test_the_review_of_the_pair_leaves_no_trace_in_what_is_left_without_another(statistics: SideStatistics) -> None:
    others = [review(number, name, 4.0, 7) for number, name in enumerate(NAMES[1:], start=1)]
    plain = ReviewList.of("a", others, statistics, CONFIG)
    for rating, tokens in ((1.0, 0), (5.0, 12)):
        with_own = ReviewList.of("a", [review(0, "a", rating, tokens), *others], statistics, CONFIG)
        apart = with_own.without_counterpart("a")
        assert list(apart) == others
        for found, expected in zip(apart.leave_one_out(others), plain.leave_one_out(others), strict=True):
            assert_same(found, expected)
            assert found.sums == expected.sums


class Encoder:
    """Every text has four rows."""

    def device(self) -> ActiveDevice:
        return "cpu"

    def encode(self, text: str) -> FloatMatrix:
        return np.zeros((4, 2), dtype=np.float32)


@pytest.mark.parametrize("rating", [0.0, 1.0])
def test_a_stored_rating_counts_beside_the_same_text_brought_without_one(rating: float) -> None:
    scale = RatingScale(lowest=0, highest=5)
    texts = [InlineText(text="awful", item="b"), InlineText(text="awful", item="b", rating=rating)]
    silent, rated = (encode_inline([one], user="a", encoder=Encoder(), scale=scale, mean=3.0) for one in texts)
    stored = ReviewList.of("a", rated.entries, side_statistics()[0], CONFIG)
    assert (stored.full_history.reviews, silent.unrated & rated.unrated) == (1, frozenset())
    joined = stored.with_inline(silent.entries, silent.unrated)
    assert [one.rating for one in joined] == [3.0, rating]
    assert (joined.full_history.reviews, joined.full_history.sums) == (1, stored.full_history.sums)
    both = encode_inline(texts, user="a", encoder=Encoder(), scale=scale, mean=3.0)
    assert [one.rating for one in both.entries] == [3.0, rating]
    assert stored.with_inline(both.entries, both.unrated).full_history.sums == stored.full_history.sums


@SIDES
def test_what_is_held_already_counts_whatever_is_brought_by_its_name(statistics: SideStatistics) -> None:
    held = ReviewList.of("a", [review(0, "b", 4.0, 3)], statistics, CONFIG)
    assert_same(held.with_inline(list(held), frozenset({"r0"})).full_history, held.full_history)


class CountedReviews(list[ReviewEntry]):
    """Counts the reviews that are looked at."""

    seen = 0

    def __iter__(self) -> Iterator[ReviewEntry]:
        for one in super().__iter__():
            self.seen += 1
            yield one


@SIDES
@pytest.mark.parametrize(
    ("worded", "most"),
    [(1.0, CONFIG.max_reviews + 1), (0.0, 500)],
    ids=["every review has tokens", "none has"],
)
def test_leaving_reviews_out_looks_at_the_head_of_the_list_once_for_all(
    statistics: SideStatistics, worded: float, most: int
) -> None:
    reviews = CountedReviews(review(number, f"x{number}", 4.0, int(12 * worded)) for number in range(500))
    apart = ReviewList.of("a", reviews, statistics, CONFIG).without_counterpart("nobody")
    reviews.seen = 0
    assert sum(1 for _ in apart.leave_one_out(reviews[:20])) == 20
    assert reviews.seen <= most


def test_a_list_apart_from_who_shares_nothing_with_it_is_the_list_itself() -> None:
    whole = ReviewList.of("a", [review(0, "b", 4.0, 7)], side_statistics()[0], CONFIG)
    assert whole.without_counterpart("c") is whole
    assert whole.history_without("c") is whole.full_history
    assert whole.history_without("b").reviews == 0
