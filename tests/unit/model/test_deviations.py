"""Usual deviations: what is taken from each rating in a history before it counts."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubert_model.deviations import DEVIATION_SHRINKAGE, UsualDeviations
from ubert_model.errors import BundleError
from ubert_model.ids import IdTable
from ubert_model.states import ReviewEntry

MEAN = 4.0


def review(user: str, item: str, rating: float) -> ReviewEntry:
    return ReviewEntry(review_id=f"{user}/{item}", user=user, item=item, rating=rating, timestamp=0, tokens=1)


def deviations_of(reviews: list[ReviewEntry]) -> UsualDeviations:
    return UsualDeviations.of(
        reviews, user_ids=IdTable.of(one.user for one in reviews), item_ids=IdTable.of(one.item for one in reviews)
    )


def test_five_stars_for_what_all_find_excellent_show_little_generosity() -> None:
    excellent = [review(f"u{number}", "excellent", 5.0) for number in range(20)]
    poor = [review(f"v{number}", "poor", 2.0) for number in range(20)]
    usual = deviations_of(excellent + poor)
    of_excellent = usual.of_user([review("me", "excellent", 5.0)]).shrunk_deviation(MEAN, 1.0)
    of_unknown = usual.of_user([review("me", "never seen", 5.0)]).shrunk_deviation(MEAN, 1.0)
    of_poor = usual.of_user([review("me", "poor", 5.0)]).shrunk_deviation(MEAN, 1.0)
    assert 0 < of_excellent < of_unknown < of_poor


def test_what_is_left_of_a_rating_is_its_deviation_less_the_usual_one() -> None:
    known = [review("u", "i", 5.0), review("v", "i", 3.0), review("v", "j", 2.0)]
    usual = deviations_of(known)
    usual_of_i = (5.0 + 3.0 - 2 * MEAN) / (2 + DEVIATION_SHRINKAGE)
    usual_of_j = (2.0 - MEAN) / (1 + DEVIATION_SHRINKAGE)
    sums = usual.of_user([review("v", "i", 3.0), review("v", "j", 2.0)])
    left = (3.0 - MEAN - usual_of_i) + (2.0 - MEAN - usual_of_j)
    assert sums.shrunk_deviation(MEAN, 2.0) == pytest.approx(left / (2 + 2.0))


def test_an_items_ratings_are_told_from_how_generous_their_users_are() -> None:
    known = [review("generous", f"i{number}", 5.0) for number in range(20)]
    known += [review("strict", f"j{number}", 2.0) for number in range(20)]
    usual = deviations_of(known)
    by_generous = usual.of_item([review("generous", "new", 4.0)]).shrunk_deviation(MEAN, 1.0)
    by_strict = usual.of_item([review("strict", "new", 4.0)]).shrunk_deviation(MEAN, 1.0)
    assert by_generous < 0 < by_strict


@given(st.floats(1, 5))
def test_the_usual_deviation_of_an_entity_does_not_depend_on_reviews_of_others(rating: float) -> None:
    mine = [review("u", "i", 5.0), review("v", "i", 4.0)]
    history = [review("w", "i", 3.0)]
    alone = deviations_of(mine).of_user(history)
    among_others = deviations_of([*mine, review("x", "j", rating)]).of_user(history)
    assert (alone.count, alone.total, alone.mean_weight) == (
        among_others.count,
        among_others.total,
        among_others.mean_weight,
    )


def test_an_empty_history_deviates_by_nothing() -> None:
    assert deviations_of([review("u", "i", 5.0)]).of_user([]).shrunk_deviation(MEAN, 3.0) == 0


def test_deviations_survive_their_file(tmp_path: Path) -> None:
    known = [review("u", "i", 5.0), review("v", "i", 3.0), review("v", "j", 2.0)]
    usual = deviations_of(known)
    usual.save(tmp_path / "deviations")
    tables = {"user_ids": IdTable.of(["u", "v"]), "item_ids": IdTable.of(["i", "j"])}
    loaded = UsualDeviations.load(tmp_path / "deviations", **tables)
    assert loaded.of_user(known) == usual.of_user(known)
    assert loaded.of_item(known) == usual.of_item(known)


def test_deviations_of_other_identities_are_refused(tmp_path: Path) -> None:
    deviations_of([review("u", "i", 5.0)]).save(tmp_path / "deviations")
    with pytest.raises(BundleError, match="for 2 users and 1 items"):
        UsualDeviations.load(tmp_path / "deviations", user_ids=IdTable(["u", "v"]), item_ids=IdTable(["i"]))


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "deviations").write_bytes(b"not tensors")
    with pytest.raises(BundleError, match="export the bundle again"):
        UsualDeviations.load(tmp_path / "deviations", user_ids=IdTable([]), item_ids=IdTable([]))


def test_strangers_share_no_deviation(tmp_path: Path) -> None:
    known = [review("u", "i", 5.0)]
    sums = deviations_of(known).of_item([review("stranger", "i", 5.0)])
    assert np.isclose(float(sums.total), 5.0)
    assert np.isclose(float(sums.mean_weight), 1.0)
