"""Review lists: the history that a pair reads of one side, and leave-one-out histories."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.rating_columns import rating_columns
from support.store_contents import namespace_of
from ubert_model.config import RatingScale, preset
from ubert_model.ids import IdTable
from ubert_model.rating.blend import BiasModel
from ubert_model.rating.curve import RatingCurve
from ubert_model.rating.deviations import SideBias
from ubert_model.rating.worth import ReviewWorth
from ubert_model.review import ReviewEntry, Side
from ubert_model.states import FloatMatrix, make_codec
from ubert_service.reading.histories import History, ReviewList, SideStatistics
from ubert_service.reading.inline import InlineText
from ubert_service.scoring.inline_encoding import encode_inline
from ubert_training.finetuning.usual_fit import fit_usual_deviations

SUMMATION = 1e-12
"""Tolerance, in stars, of sums of a few ratings that are added up in another order."""
WORTH = ReviewWorth(curve=RatingCurve.of_rises(RatingScale(), [0.3, 0.1, 0.8, 1.2]), surplus_weight=0.8)
SIDE = SideBias(worth=WORTH, mean=1.1, shrinkage=2.0)
BIAS = BiasModel(mean=3.5, intercept=0.0, user=SIDE, item=SIDE)
CONFIG = replace(preset("tiny"), max_reviews=3, max_length=12, max_rows=30)
NAMES = "abcdef"
CODEC = make_codec(namespace_of())


def review(number: int, counterpart: str, rating: float, rows: int) -> ReviewEntry:
    """Number 0 is the newest. The counterpart is both user and item, so that the review fits a list of either side."""
    return ReviewEntry(
        review_id=f"r{number}",
        user=counterpart,
        item=counterpart,
        rating=rating,
        timestamp=1000 - number,
        rows=rows,
        surplus=number % 3 - 0.75,
    )


def side_statistics() -> list[SideStatistics]:
    known = [review(number, name, 1.0 + number % 5, 1) for number, name in enumerate(2 * NAMES[:4])]
    ids = IdTable.of(NAMES[:4])
    of_others = rating_columns([replace(known[0], user="a"), known[1]], user_ids=ids)
    usual = fit_usual_deviations(rating_columns(known, user_ids=ids, item_ids=ids), WORTH, WORTH, of_others)
    return [SideStatistics(side, usual, BIAS) for side in Side]


SIDES = pytest.mark.parametrize("statistics", side_statistics(), ids=["user", "item"])
ratings = st.tuples(st.sampled_from(NAMES), st.integers(1, 5).map(float), st.integers(0, 12))
review_lists = st.lists(ratings, max_size=12).map(
    lambda rated: [review(number, *one) for number, one in enumerate(rated)]
)


def list_of(reviews: list[ReviewEntry], statistics: SideStatistics, unrated: frozenset[str]) -> ReviewList:
    """A list of these reviews, of which the first four are inline if any are unrated."""
    inline = reviews[:4] if unrated else []
    return ReviewList.of("a", reviews[len(inline) :], statistics, CONFIG).with_inline(inline, unrated)


def assert_same(found: History, expected: History) -> None:
    assert (found.reviews, found.selected) == (expected.reviews, expected.selected)
    assert (found.sums.count, found.sums.elsewhere) == (expected.sums.count, expected.sums.elsewhere)
    assert found.sums.above_usual == pytest.approx(expected.sums.above_usual, abs=SUMMATION)
    assert found.residuals.tolist() == pytest.approx(expected.residuals.tolist(), abs=1e-6)
    assert found.is_rated == expected.is_rated


@SIDES
@given(reviews=review_lists, unrated=st.sets(st.sampled_from(["r0", "r2", "r3"])).map(frozenset))
def test_a_leave_one_out_history_equals_that_of_a_list_without_the_review(
    statistics: SideStatistics, reviews: list[ReviewEntry], unrated: frozenset[str]
) -> None:
    for counterpart in ("a", "nobody"):
        without = list_of(reviews, statistics, unrated).without_counterpart(counterpart)
        kept = [one for one in reviews if one.item != counterpart]
        assert list(without) == kept
        for left_out, found in zip(kept, without.leave_one_out(kept), strict=True):
            # Which reviews count follows from their ids alone, so inline or stored makes no difference here.
            others = [one for one in kept if one is not left_out]
            expected = ReviewList("a", others, statistics, frozenset(), CONFIG, unrated)
            assert_same(found, expected.full_history)


@SIDES
@pytest.mark.parametrize("rating", [1.0, 5.0])
def test_without_its_only_rating_an_entity_has_a_bias_of_exactly_zero(
    statistics: SideStatistics, rating: float
) -> None:
    only = review(0, "e", rating, 3)
    (without,) = ReviewList.of("f", [only], statistics, CONFIG).leave_one_out([only])
    assert (without.reviews, without.selected, without.is_rated) == (0, (), False)
    assert float(SIDE.bias(without.sums)) == 0.0


def test_a_user_with_ratings_in_other_domains_only_is_rated() -> None:
    of_users, of_items = (ReviewList.of("a", [], statistics, CONFIG).full_history for statistics in side_statistics())
    assert (of_users.is_rated, of_items.is_rated) == (True, False)


@SIDES
def test_a_review_without_a_rating_has_a_residual_of_zero(statistics: SideStatistics) -> None:
    rated, unrated = review(1, "b", 1.0, 3), review(0, "c", 1.0, 3)
    joined = (
        ReviewList.of("f", [rated], statistics, CONFIG)
        .with_inline([unrated], frozenset({unrated.review_id}))
        .full_history
    )
    assert [one.review_id for one in joined.selected] == [unrated.review_id, rated.review_id]
    assert joined.residuals[0] == 0.0 != joined.residuals[1]


@SIDES
def test_the_review_of_the_pair_changes_no_leave_one_out_history(statistics: SideStatistics) -> None:
    others = [review(number, name, 4.0, 7) for number, name in enumerate(NAMES[1:], start=1)]
    plain = ReviewList.of("a", others, statistics, CONFIG)
    for rating, rows in ((1.0, 0), (5.0, 12)):
        with_own = ReviewList.of("a", [review(0, "a", rating, rows), *others], statistics, CONFIG)
        without = with_own.without_counterpart("a")
        assert list(without) == others
        for found, expected in zip(without.leave_one_out(others), plain.leave_one_out(others), strict=True):
            assert_same(found, expected)
            assert found.sums == expected.sums


class Encoder:
    """Every text has four rows."""

    def encode(self, text: str) -> FloatMatrix:
        return np.zeros((4, CODEC.namespace.state_dim), dtype=np.float32)


@pytest.mark.parametrize("rating", [0.0, 1.0])
def test_a_stored_rating_counts_beside_an_unrated_inline_review_of_the_same_text(rating: float) -> None:
    scale = RatingScale(lowest=0, highest=5)
    texts = [InlineText(text="awful", item="b"), InlineText(text="awful", item="b", rating=rating)]
    without_rating, with_rating = (
        encode_inline([one], user="a", encoder=Encoder(), codec=CODEC, scale=scale, mean=3.0) for one in texts
    )
    stored = ReviewList.of("a", with_rating.entries, side_statistics()[0], CONFIG)
    assert (stored.full_history.reviews, without_rating.unrated & with_rating.unrated) == (1, frozenset())
    joined = stored.with_inline(without_rating.entries, without_rating.unrated)
    assert [one.rating for one in joined] == [3.0, rating]
    assert (joined.full_history.reviews, joined.full_history.sums) == (1, stored.full_history.sums)
    both = encode_inline(texts, user="a", encoder=Encoder(), codec=CODEC, scale=scale, mean=3.0)
    assert [one.rating for one in both.entries] == [3.0, rating]
    assert stored.with_inline(both.entries, both.unrated).full_history.sums == stored.full_history.sums


@SIDES
def test_an_inline_review_never_replaces_a_stored_one_of_its_id(statistics: SideStatistics) -> None:
    stored = ReviewList.of("a", [review(0, "b", 4.0, 3)], statistics, CONFIG)
    assert_same(stored.with_inline(list(stored), frozenset({"r0"})).full_history, stored.full_history)


class CountedReviews(list[ReviewEntry]):
    """Counts the reviews that are iterated over."""

    count_read = 0

    def __iter__(self) -> Iterator[ReviewEntry]:
        for one in super().__iter__():
            self.count_read += 1
            yield one


@SIDES
@pytest.mark.parametrize(
    ("rows", "most"),
    [(12, CONFIG.max_reviews + 1), (0, 500)],
    ids=["every review has rows", "none has"],
)
def test_leave_one_out_reads_the_head_of_the_list_once_for_all_its_histories(
    statistics: SideStatistics, rows: int, most: int
) -> None:
    reviews = CountedReviews(review(number, f"x{number}", 4.0, rows) for number in range(500))
    without = ReviewList.of("a", reviews, statistics, CONFIG).without_counterpart("nobody")
    reviews.count_read = 0
    assert sum(1 for _ in without.leave_one_out(reviews[:20])) == 20
    assert reviews.count_read <= most


def test_a_list_without_a_counterpart_that_it_does_not_hold_is_the_same_list() -> None:
    whole = ReviewList.of("a", [review(0, "b", 4.0, 7)], side_statistics()[0], CONFIG)
    assert whole.without_counterpart("c") is whole
    assert whole.without_counterpart("b").full_history.reviews == 0
