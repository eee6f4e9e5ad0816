"""Sums of histories, relative to what is usual for the counterparts of their reviews."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubert_model.config import RatingScale
from ubert_model.errors import BundleError, ConfigError
from ubert_model.ids import IdTable
from ubert_model.rating.curve import RatingCurve
from ubert_model.rating.deviations import (
    ElsewhereRatings,
    RatingSums,
    SideBias,
    SideDeviations,
    UsualDeviations,
)
from ubert_model.rating.worth import ReviewWorth
from ubert_model.review import ReviewEntry, Side

MEAN = 3.0
STRAIGHT = ReviewWorth(curve=RatingCurve.of_rises(RatingScale(), [4.0]), surplus_weight=0.5)
SIDE = SideBias(worth=STRAIGHT, mean=MEAN, shrinkage=1.0)
USERS, ITEMS = IdTable(["u", "v"]), IdTable(["i", "j"])
USUAL = UsualDeviations(
    SideDeviations(Side.USER, STRAIGHT, MEAN, ITEMS, np.array([[0.0, 0.0], [0.9, 0.3], [0.1, 0.2]])),
    SideDeviations(Side.ITEM, STRAIGHT, MEAN, USERS, np.array([[0.0, 0.0], [1.0, 0.3], [0.4, 0.2]])),
    ElsewhereRatings(USERS, np.array([[0.0, 0.0, 0.0], [2.0, 7.5, 1.8], [0.0, 0.0, 0.0]])),
)


def review(user: str, item: str, rating: float, surplus: float = 0.0) -> ReviewEntry:
    name = f"{user}/{item}"
    return ReviewEntry(review_id=name, user=user, item=item, rating=rating, timestamp=0, rows=1, surplus=surplus)


def load(path: Path) -> UsualDeviations:
    return UsualDeviations.load(path, SIDE, SIDE, user_ids=USERS, item_ids=ITEMS)


def test_an_empty_history_deviates_by_nothing() -> None:
    assert USUAL.sums(Side.ITEM, "i", []).shrunk_deviation(3.0) == 0


def test_saved_deviations_are_loaded_unchanged(tmp_path: Path) -> None:
    reviews = [review("u", "i", 5.0, 0.4), review("v", "i", 3.0, -1.0), review("v", "j", 2.0)]
    USUAL.save(tmp_path / "deviations")
    loaded = load(tmp_path / "deviations")
    assert loaded.sums(Side.USER, "v", reviews) == USUAL.sums(Side.USER, "v", reviews)
    assert loaded.sums(Side.ITEM, "i", reviews) == USUAL.sums(Side.ITEM, "i", reviews)


@pytest.mark.parametrize("known", [("uv", "i", "uv"), ("u", "ij", "uv"), ("uv", "ij", "u")])
def test_deviations_of_other_identities_are_refused(tmp_path: Path, known: tuple[str, str, str]) -> None:
    """Of one table at a time: the users, the items, the users with ratings in other domains."""
    users, items, elsewhere = (IdTable.of(names) for names in known)
    usual = UsualDeviations(
        SideDeviations(Side.USER, STRAIGHT, MEAN, items, np.zeros((len(items) + 1, 2))),
        SideDeviations(Side.ITEM, STRAIGHT, MEAN, users, np.zeros((len(users) + 1, 2))),
        ElsewhereRatings(elsewhere, np.zeros((len(elsewhere) + 1, 3))),
    )
    usual.save(tmp_path / "deviations")
    with pytest.raises(BundleError, match="for 2 users and 2 items"):
        load(tmp_path / "deviations")


def test_a_file_that_holds_no_tensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "deviations").write_bytes(b"not tensors")
    with pytest.raises(BundleError, match="export the bundle again"):
        load(tmp_path / "deviations")


def test_a_residual_is_a_rating_less_the_usual_of_its_counterpart_and_the_bias_of_its_side() -> None:
    mine = [review("w", "i", 4.0, -0.3), review("w", "new", 1.0, 0.8)]
    bias = SIDE.bias(USUAL.sums(Side.USER, "w", mine))
    alone = USUAL.user.above_usual(mine)
    found = USUAL.residuals(Side.USER, mine, bias)
    assert found.dtype == np.float32
    assert found.tolist() == pytest.approx([above - float(bias) for above in alone], abs=1e-6)
    (of_item,) = USUAL.residuals(Side.ITEM, [review("v", "new", 5.0, 0.6)], 0.25)
    expected = USUAL.sums(Side.ITEM, "new", [review("v", "new", 5.0, 0.6)]).above_usual
    assert of_item == pytest.approx(float(expected) - 0.25, abs=1e-6)
    assert USUAL.residuals(Side.ITEM, [], 0.0).shape == (0,)


def test_sums_without_a_review_equal_the_sums_of_the_others() -> None:
    mine = [review("u", "i", 4.0, 0.9), review("u", "new", 1.0, -0.6), review("u", "j", 3.0, 0.1)]
    for left_out in mine:
        less = USUAL.user.without(USUAL.sums(Side.USER, "u", mine), left_out)
        expected = USUAL.sums(Side.USER, "u", [one for one in mine if one is not left_out])
        assert (less.count, less.elsewhere) == (2, expected.elsewhere)
        assert less.above_usual == pytest.approx(expected.above_usual, abs=1e-12)


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
