"""Usual deviations, which are subtracted from what the reviews of a history count for before it is summed up."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.rating_columns import net_of_one, rating_columns
from ubert_model.config import RatingScale
from ubert_model.ids import IdTable
from ubert_model.rating.curve import RatingCurve
from ubert_model.rating.deviations import RatingSums, UsualDeviations, stack_sums
from ubert_model.rating.worth import ReviewWorth
from ubert_model.review import ReviewEntry, Side
from ubert_training.finetuning.usual_fit import (
    DEVIATION_SHRINKAGE,
    fit_usual_deviations,
    net_of_usual,
    with_elsewhere,
)

MEAN = 3.0
"""Of what reviews count for by the curve below, which is 0 at one star: so four stars lie at the mean."""
STRAIGHT = ReviewWorth(curve=RatingCurve.of_rises(RatingScale(), [4.0]), surplus_weight=0.5)
BENT = ReviewWorth(curve=RatingCurve.of_rises(RatingScale(), [0.0, 0.0, 1.0, 1.0]), surplus_weight=0.25)
USERS = IdTable.of(["u", "v"])


def review(user: str, item: str, rating: float, surplus: float = 0.0) -> ReviewEntry:
    name = f"{user}/{item}"
    return ReviewEntry(review_id=name, user=user, item=item, rating=rating, timestamp=0, rows=1, surplus=surplus)


def deviations_of(
    reviews: list[ReviewEntry], user: ReviewWorth = STRAIGHT, item: ReviewWorth = STRAIGHT
) -> UsualDeviations:
    return fit_usual_deviations(rating_columns(reviews), user, item)


def deviations_with(elsewhere: list[ReviewEntry], reviews: list[ReviewEntry]) -> UsualDeviations:
    """Of ``reviews`` and of those in other domains."""
    rated, others = (rating_columns(some, user_ids=USERS) for some in (reviews, elsewhere))
    return fit_usual_deviations(rated, STRAIGHT, STRAIGHT, others)


def test_the_higher_an_item_is_usually_rated_the_less_five_stars_raise_a_users_deviation() -> None:
    excellent = [review(f"u{number}", "excellent", 5.0) for number in range(20)]
    poor = [review(f"v{number}", "poor", 2.0) for number in range(20)]
    usual = deviations_of(excellent + poor)
    of_excellent = usual.sums(Side.USER, "me", [review("me", "excellent", 5.0)]).shrunk_deviation(1.0)
    of_unknown = usual.sums(Side.USER, "me", [review("me", "never seen", 5.0)]).shrunk_deviation(1.0)
    of_poor = usual.sums(Side.USER, "me", [review("me", "poor", 5.0)]).shrunk_deviation(1.0)
    assert 0 < of_excellent < of_unknown < of_poor


def test_a_rating_counts_as_its_deviation_less_the_usual_one_of_its_item() -> None:
    known = [review("u", "i", 5.0), review("v", "i", 3.0), review("v", "j", 2.0)]
    usual = deviations_of(known)
    usual_of_i = (4.0 + 2.0 - 2 * MEAN) / (2 + DEVIATION_SHRINKAGE)
    usual_of_j = (1.0 - MEAN) / (1 + DEVIATION_SHRINKAGE)
    terms = [net_of_one(usual.user, *one) for one in (("i", 3.0), ("j", 2.0))]
    assert [net_worth - share * MEAN for net_worth, share in terms] == pytest.approx(
        [2.0 - MEAN - usual_of_i, 1.0 - MEAN - usual_of_j]
    )
    sums = usual.sums(Side.USER, "v", known[1:])
    assert sums.above_usual == pytest.approx(sum(usual.user.above_usual(known[1:])))
    assert sums.shrunk_deviation(2.0) == pytest.approx(float(sums.above_usual) / (2 + 2.0))


def test_a_text_that_says_more_than_its_stars_counts_for_more_and_raises_what_is_usual() -> None:
    known = [review("u", "i", 5.0, 0.4), review("v", "i", 3.0, -1.0), review("v", "j", 2.0)]
    usual = deviations_of(known)
    mean = (4.0 + 0.5 * 0.4 + 2.0 - 0.5 * 1.0 + 1.0) / 3
    usual_of_v = (2.0 - 0.5 + 1.0 - 2 * mean) / (2 + DEVIATION_SHRINKAGE)
    assert usual.item.mean == pytest.approx(mean)
    assert usual.sums(Side.ITEM, "new", [review("v", "new", 4.0, 0.6)]).above_usual == pytest.approx(
        3.0 + 0.5 * 0.6 - mean - usual_of_v
    )


def test_a_surplus_without_weight_counts_for_nothing() -> None:
    plain = replace(STRAIGHT, surplus_weight=0.0)
    known = [("u", "i", 5.0, 0.4), ("v", "i", 3.0, -1.0), ("v", "j", 2.0, 2.0)]
    with_texts, without = [review(*one) for one in known], [review(*one[:3]) for one in known]
    sums = [deviations_of(one, plain, plain).sums(Side.ITEM, "i", one[:2]) for one in (with_texts, without)]
    assert sums[0] == sums[1]


def test_each_side_counts_ratings_by_its_own_curve() -> None:
    known = [review("u", "i", 1.0), review("v", "i", 3.0), review("v", "j", 5.0)]
    usual = deviations_of(known, BENT, STRAIGHT)
    assert (usual.user.mean, usual.item.mean) == pytest.approx((2 / 3, 2.0))
    one, three = (usual.sums(Side.USER, "w", [review("w", "new", rating)]).above_usual for rating in (1.0, 3.0))
    assert one == three == pytest.approx(0 - 2 / 3)
    assert usual.sums(Side.ITEM, "i", [review("new", "i", 1.0)]).above_usual == pytest.approx(0 - 2.0)


def test_an_items_ratings_count_relative_to_how_high_their_users_usually_rate() -> None:
    known = [review("generous", f"i{number}", 5.0) for number in range(20)]
    known += [review("strict", f"j{number}", 2.0) for number in range(20)]
    usual = deviations_of(known)
    by_generous = usual.sums(Side.ITEM, "new", [review("generous", "new", 4.0)]).shrunk_deviation(1.0)
    by_strict = usual.sums(Side.ITEM, "new", [review("strict", "new", 4.0)]).shrunk_deviation(1.0)
    assert by_generous < 0 < by_strict


@given(st.floats(1, 5))
def test_the_usual_deviation_of_an_entity_does_not_depend_on_reviews_of_others(rating: float) -> None:
    mine = [review("u", "i", 5.0, 0.3), review("v", "i", 4.0, -0.2)]
    alone = net_of_one(deviations_of(mine).user, "i", 3.0)
    among_others = net_of_one(deviations_of([*mine, review("x", "j", rating, 0.7)]).user, "i", 3.0)
    assert alone == among_others


def test_a_rating_in_another_domain_counts_as_any_other() -> None:
    known = [review("u", "i", 4.0), review("v", "i", 4.0)]
    elsewhere = [review("u", "far", 5.0), review("u", "off", 5.0), review("v", "far", 1.0)]
    usual = deviations_with(elsewhere, known)
    sums = usual.sums(Side.USER, "u", known[:1])
    mean = (3.0 + 3.0 + 4.0 + 4.0 + 0.0) / 5
    usual_of_i, usual_of_far = ((total - 2 * mean) / (2 + DEVIATION_SHRINKAGE) for total in (6.0, 4.0))
    usual_of_off = (4.0 - mean) / (1 + DEVIATION_SHRINKAGE)
    above_usual = (3.0 - mean - usual_of_i) + (4.0 - mean - usual_of_far) + (4.0 - mean - usual_of_off)
    assert (sums.count, sums.elsewhere) == (1, 2)
    assert sums.above_usual == pytest.approx(above_usual)
    assert sums.shrunk_deviation(2.0) == pytest.approx(sums.above_usual / (1 + 2 + 2))
    stranger = usual.sums(Side.USER, "stranger", known[:1])
    assert stranger.elsewhere == 0
    assert stranger.above_usual == pytest.approx(3.0 - mean - usual_of_i)


def test_ratings_in_other_domains_tell_what_is_usual_as_the_others_do() -> None:
    """Items of the other domains get no row, and one that is in both has all its ratings."""
    known = [review("u", "i", 4.0, 0.5), review("v", "both", 2.0), review("v", "i", 5.0)]
    elsewhere = [
        review("u", "far", 5.0, -0.5),
        review("w", "both", 1.0),
        review("v", "far", 1.0),
        review("u", "off", 3.0),
    ]
    users, items = IdTable.of("uvw"), IdTable.of(["i", "both"])
    rated = rating_columns(known, user_ids=users, item_ids=items)
    usual = fit_usual_deviations(rated, BENT, STRAIGHT, rating_columns(elsewhere, user_ids=users))
    whole = fit_usual_deviations(rating_columns([*known, *elsewhere]), BENT, STRAIGHT)
    assert (usual.user.mean, usual.item.mean) == (whole.user.mean, whole.item.mean)
    assert usual.user.usual.shape == (3, 2)
    assert usual.item.usual.tolist() == whole.item.usual.tolist()
    assert usual.user.above_usual(known) == whole.user.above_usual(known)
    for user in "uvw":
        here, there = ([one for one in reviews if one.user == user] for reviews in (known, elsewhere))
        sums, expected = usual.sums(Side.USER, user, here), whole.sums(Side.USER, user, [*here, *there])
        assert (sums.count, sums.elsewhere) == (len(here), len(there))
        assert sums.above_usual == pytest.approx(expected.above_usual, abs=1e-12)


def test_a_user_with_ratings_in_other_domains_alone_has_a_deviation() -> None:
    usual = deviations_with([review("v", "far", 5.0), review("w", "far", 1.0)], [review("u", "i", 4.0)])
    assert usual.sums(Side.USER, "v", []).shrunk_deviation(1.0) > 0


def test_unknown_counterparts_have_no_usual_deviation() -> None:
    known = [review("u", "i", 5.0)]
    sums = deviations_of(known).sums(Side.ITEM, "i", [review("stranger", "i", 2.0)])
    assert sums == RatingSums(count=1, above_usual=1.0 - 4.0)
    by_a_stranger = rating_columns([*known, review("v", "j", 1.0)], user_ids=IdTable(["u"]), item_ids=IdTable(["i"]))
    usual = fit_usual_deviations(by_a_stranger, STRAIGHT, STRAIGHT, by_a_stranger)
    assert [net_of_one(side, "another", 2.0) for side in (usual.user, usual.item)] == [(1.0, 1.0)] * 2
    assert usual.user.above_usual([review("w", "another", 2.0)]) == [1.0 - usual.user.mean]
    assert usual.sums(Side.USER, "another", []) == RatingSums(count=0, above_usual=0)


def test_the_net_worths_of_ratings_by_rows_of_another_table_equal_those_of_each_rating() -> None:
    side = deviations_of([review("u", "i", 5.0, 0.4), review("v", "i", 3.0, -1.0), review("u", "j", 2.0)]).user
    items, worths = ["j", "new", "i", "unlisted"], [0.0, 1.3, 3.5, 4.0]
    other = IdTable(["new", "j", "k", "i"])
    rated = rating_columns([review("w", item, 3.0) for item in items], item_ids=other)
    net_worths, shares = net_of_usual(side, rated, np.array(worths))
    usual = side.usual[side.counterparts.rows(items)]
    expected = [(worth - total, 1.0 - count) for worth, (total, count) in zip(worths, usual, strict=True)]
    assert list(zip(net_worths.tolist(), shares.tolist(), strict=True)) == expected


def test_users_without_ratings_in_other_domains_have_sums_of_zero_there() -> None:
    known = [review("u", "i", 4.0), review("v", "i", 2.0)]
    for usual in (deviations_of(known), deviations_with([], known)):
        assert usual.elsewhere.sums.tolist() == [[0.0, 0.0, 0.0]] * 3


def test_ratings_in_other_domains_are_added_to_many_users_as_to_each() -> None:
    elsewhere = deviations_with([review("u", "far", 5.0), review("v", "far", 1.0)], [review("u", "i", 4.0)]).elsewhere
    users = ["u", "a stranger", "v"]
    sums = [RatingSums(count=number, above_usual=0.5 * number) for number in range(3)]
    means = [MEAN, 0.0, 2.5]
    together = with_elsewhere(elsewhere, users, stack_sums(sums), np.array(means))
    alone = stack_sums([elsewhere.added(*one) for one in zip(users, sums, means, strict=True)])
    for name in ("count", "above_usual", "elsewhere"):
        np.testing.assert_array_equal(getattr(together, name), getattr(alone, name))
