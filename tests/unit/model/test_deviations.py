"""Usual deviations, which are subtracted from what the reviews of a history count for before it is summed up."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.rating_columns import rating_columns, terms_of_one
from ubert_model.config import RatingScale
from ubert_model.errors import BundleError, ConfigError
from ubert_model.ids import IdTable
from ubert_model.rating.curve import RatingCurve
from ubert_model.rating.deviations import (
    DEVIATION_SHRINKAGE,
    ElsewhereRatings,
    RatingSums,
    SideBias,
    SideDeviations,
    UsualDeviations,
    stack_sums,
)
from ubert_model.rating.worth import ReviewWorth
from ubert_model.review import ReviewEntry, Side

MEAN = 3.0
"""In levels of the curve below, which is 0 at one star: so four stars lie at the mean."""
STRAIGHT = ReviewWorth(curve=RatingCurve.of_rises(RatingScale(), [4.0]), surplus_weight=0.5)
BENT = ReviewWorth(curve=RatingCurve.of_rises(RatingScale(), [0.0, 0.0, 1.0, 1.0]), surplus_weight=0.25)
TABLES = {"user_ids": IdTable.of(["u", "v"]), "item_ids": IdTable.of(["i", "j"])}
SIDE = SideBias(worth=STRAIGHT, mean=MEAN, shrinkage=1.0)


def review(user: str, item: str, rating: float, surplus: float = 0.0) -> ReviewEntry:
    name = f"{user}/{item}"
    return ReviewEntry(review_id=name, user=user, item=item, rating=rating, timestamp=0, rows=1, surplus=surplus)


def deviations_of(
    reviews: list[ReviewEntry],
    user: ReviewWorth = STRAIGHT,
    item: ReviewWorth = STRAIGHT,
    elsewhere: ElsewhereRatings | None = None,
) -> UsualDeviations:
    usual = UsualDeviations.of(rating_columns(reviews), user, item)
    return UsualDeviations(usual.user, usual.item, elsewhere or usual.elsewhere)


def elsewhere_of(reviews: list[ReviewEntry], worth: ReviewWorth, users: IdTable) -> ElsewhereRatings:
    """By what is usual among these reviews alone."""
    rated = rating_columns(reviews, user_ids=users)
    return ElsewhereRatings.of(rated, SideDeviations.of(Side.USER, rated, worth))


def load(path: Path, usual: UsualDeviations | None = None) -> UsualDeviations:
    sides = [replace(SIDE, worth=one.worth, mean=one.mean) for one in (usual.user, usual.item)] if usual else [SIDE] * 2
    return UsualDeviations.load(path, sides[0], sides[1], **TABLES)


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
    terms = [terms_of_one(usual.user, *one) for one in (("i", 3.0), ("j", 2.0))]
    assert [level - share * MEAN for level, share in terms] == pytest.approx(
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
    alone = terms_of_one(deviations_of(mine).user, "i", 3.0)
    among_others = terms_of_one(deviations_of([*mine, review("x", "j", rating, 0.7)]).user, "i", 3.0)
    assert alone == among_others


def test_an_empty_history_deviates_by_nothing() -> None:
    assert deviations_of([review("u", "i", 5.0)]).sums(Side.USER, "u", []).shrunk_deviation(3.0) == 0


def test_a_rating_in_another_domain_counts_as_any_other() -> None:
    known = [review("u", "i", 4.0), review("v", "i", 4.0)]
    elsewhere = [review("u", "far", 5.0), review("u", "off", 5.0), review("v", "far", 1.0)]
    users = IdTable.of("uv")
    here, there = (rating_columns(reviews, user_ids=users) for reviews in (known, elsewhere))
    usual = UsualDeviations.of(here, STRAIGHT, STRAIGHT, there)
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
    usual = UsualDeviations.of(rated, BENT, STRAIGHT, rating_columns(elsewhere, user_ids=users))
    whole = UsualDeviations.of(rating_columns([*known, *elsewhere]), BENT, STRAIGHT)
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
    elsewhere = elsewhere_of([review("v", "far", 5.0), review("w", "far", 1.0)], STRAIGHT, TABLES["user_ids"])
    sums = deviations_of([review("u", "i", 4.0), review("v", "i", 4.0)], elsewhere=elsewhere).sums(Side.USER, "v", [])
    assert sums.shrunk_deviation(1.0) > 0


def test_saved_deviations_are_loaded_unchanged(tmp_path: Path) -> None:
    known = [review("u", "i", 5.0, 0.4), review("v", "i", 3.0, -1.0), review("v", "j", 2.0)]
    elsewhere = elsewhere_of([review("v", "far", 5.0, 0.2), review("u", "far", 1.0)], BENT, TABLES["user_ids"])
    usual = deviations_of(known, elsewhere=elsewhere)
    usual.save(tmp_path / "deviations")
    loaded = load(tmp_path / "deviations", usual)
    assert loaded.sums(Side.USER, "v", known) == usual.sums(Side.USER, "v", known)
    assert loaded.sums(Side.ITEM, "i", known) == usual.sums(Side.ITEM, "i", known)


@pytest.mark.parametrize("known", [("uv", "i", "uv"), ("u", "ij", "uv"), ("uv", "ij", "u")])
def test_deviations_of_other_identities_are_refused(tmp_path: Path, known: tuple[str, str, str]) -> None:
    """Of one table at a time: the users, the items, the users with ratings in other domains."""
    users, items, elsewhere = (IdTable.of(names) for names in known)
    rated = rating_columns([review("u", "i", 5.0)], user_ids=users, item_ids=items)
    usual = UsualDeviations.of(rated, STRAIGHT, STRAIGHT)
    UsualDeviations(usual.user, usual.item, ElsewhereRatings.none(elsewhere)).save(tmp_path / "deviations")
    with pytest.raises(BundleError, match="for 2 users and 2 items"):
        load(tmp_path / "deviations")


def test_a_file_that_holds_no_tensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "deviations").write_bytes(b"not tensors")
    with pytest.raises(BundleError, match="export the bundle again"):
        load(tmp_path / "deviations")


def test_a_residual_is_a_rating_less_the_usual_of_its_counterpart_and_the_bias_of_its_side() -> None:
    known = [review("u", "i", 5.0, 0.4), review("v", "i", 3.0, -1.0), review("u", "j", 2.0)]
    usual = deviations_of(known)
    mine = [review("w", "i", 4.0, -0.3), review("w", "new", 1.0, 0.8)]
    bias = SIDE.bias(usual.sums(Side.USER, "w", mine))
    alone = usual.user.above_usual(mine)
    found = usual.residuals(Side.USER, mine, bias)
    assert found.dtype == np.float32
    assert found.tolist() == pytest.approx([above - float(bias) for above in alone], abs=1e-6)
    (of_item,) = usual.residuals(Side.ITEM, [review("v", "new", 5.0, 0.6)], 0.25)
    expected = usual.sums(Side.ITEM, "new", [review("v", "new", 5.0, 0.6)]).above_usual
    assert of_item == pytest.approx(float(expected) - 0.25, abs=1e-6)
    assert usual.residuals(Side.ITEM, [], 0.0).shape == (0,)


def test_sums_without_a_review_equal_the_sums_of_the_others() -> None:
    known = [review("u", "i", 5.0, 0.4), review("v", "i", 3.0, -1.0), review("u", "j", 2.0)]
    elsewhere = elsewhere_of([review("u", "far", 5.0, 0.2)], STRAIGHT, IdTable.of("uv"))
    usual = deviations_of(known, BENT, STRAIGHT, elsewhere)
    mine = [review("u", "i", 4.0, 0.9), review("u", "new", 1.0, -0.6), review("u", "j", 3.0, 0.1)]
    for left_out in mine:
        less = usual.user.without(usual.sums(Side.USER, "u", mine), left_out)
        expected = usual.sums(Side.USER, "u", [one for one in mine if one is not left_out])
        assert (less.count, less.elsewhere) == (2, expected.elsewhere)
        assert less.above_usual == pytest.approx(expected.above_usual, abs=1e-12)


def test_unknown_counterparts_have_no_usual_deviation() -> None:
    known = [review("u", "i", 5.0)]
    sums = deviations_of(known).sums(Side.ITEM, "i", [review("stranger", "i", 2.0)])
    assert sums == RatingSums(count=1, above_usual=1.0 - 4.0)
    by_a_stranger = rating_columns([*known, review("v", "j", 1.0)], user_ids=IdTable(["u"]), item_ids=IdTable(["i"]))
    usual = UsualDeviations.of(by_a_stranger, STRAIGHT, STRAIGHT, by_a_stranger)
    assert [terms_of_one(side, "another", 2.0) for side in (usual.user, usual.item)] == [(1.0, 1.0)] * 2
    assert usual.user.above_usual([review("w", "another", 2.0)]) == [1.0 - usual.user.mean]
    assert usual.sums(Side.USER, "another", []) == RatingSums(count=0, above_usual=0)


def test_the_terms_of_ratings_by_rows_of_another_table_equal_those_of_each_rating() -> None:
    side = deviations_of([review("u", "i", 5.0, 0.4), review("v", "i", 3.0, -1.0), review("u", "j", 2.0)]).user
    items, worths = ["j", "new", "i", "unlisted"], [0.0, 1.3, 3.5, 4.0]
    other = IdTable(["new", "j", "k", "i"])
    levels, shares = side.terms_of(other.rows(items), np.array(worths), other)
    usual = side.usual[TABLES["item_ids"].rows(items)]
    expected = [(worth - total, 1.0 - count) for worth, (total, count) in zip(worths, usual, strict=True)]
    assert list(zip(levels.tolist(), shares.tolist(), strict=True)) == expected


@pytest.mark.parametrize("shrinkage", [0.0, -1.0])
def test_a_shrinkage_that_is_not_positive_is_refused(shrinkage: float) -> None:
    with pytest.raises(ConfigError, match=f"shrinkage = {shrinkage}.*positive"):
        SideBias(worth=STRAIGHT, mean=MEAN, shrinkage=shrinkage)


@given(above=st.lists(st.floats(-4, 4), min_size=1, max_size=20), shrinkage=st.floats(0.01, 100))
def test_a_shrunk_deviation_lies_between_zero_and_the_plain_mean(above: list[float], shrinkage: float) -> None:
    plain = sum(above) / len(above)
    shrunk = float(RatingSums(count=len(above), above_usual=sum(above)).shrunk_deviation(shrinkage))
    assert min(0, plain) - 1e-9 <= shrunk <= max(0, plain) + 1e-9


def test_more_ratings_of_the_same_kind_shrink_less() -> None:
    counts = np.array([0, 1, 5, 50, 5000])
    deviations = RatingSums(count=counts, above_usual=counts * 1.0).shrunk_deviation(5.0)
    assert deviations[0] == 0
    assert (np.diff(deviations) > 0).all()
    assert deviations[-1] == pytest.approx(1.0, abs=0.01)


def test_users_without_ratings_in_other_domains_have_sums_of_zero_there() -> None:
    none = elsewhere_of([], STRAIGHT, TABLES["user_ids"])
    assert none.sums.tolist() == ElsewhereRatings.none(TABLES["user_ids"]).sums.tolist() == [[0.0, 0.0, 0.0]] * 3


def test_ratings_in_other_domains_are_added_to_many_users_as_to_each() -> None:
    elsewhere = elsewhere_of([review("u", "far", 5.0), review("v", "far", 1.0)], BENT, TABLES["user_ids"])
    users = ["u", "a stranger", "v"]
    sums = [RatingSums(count=number, above_usual=0.5 * number) for number in range(3)]
    means = [MEAN, 0.0, 2.5]
    together = elsewhere.added_to_each(users, stack_sums(sums), np.array(means))
    alone = stack_sums([elsewhere.added(*one) for one in zip(users, sums, means, strict=True)])
    for name in ("count", "above_usual", "elsewhere"):
        np.testing.assert_array_equal(getattr(together, name), getattr(alone, name))
