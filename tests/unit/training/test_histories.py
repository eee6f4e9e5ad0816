"""Law 5: the target review is never an input, whichever part it belongs to."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.rating_columns import terms_of_one
from support.small_corpus import small_table
from ubert_model.config import preset
from ubert_model.rating.blend import BiasModel
from ubert_model.rating.curve import RatingCurve
from ubert_model.rating.deviations import SideBias
from ubert_model.states import ReviewEntry
from ubert_training.finetuning import bias_fit, histories
from ubert_training.finetuning.bias_fit import bias_ratings, fit_bias_model
from ubert_training.finetuning.histories import Histories, KnownReviews
from ubert_training.pretraining.corpus_rows import pretraining_rows, target_rows
from ubert_training.reviews.table import Review, ReviewTable
from ubert_training.splits import Split, random_split

TABLE = small_table()
SPLIT = random_split(TABLE, np.arange(len(TABLE)), seed=0)
CONFIG = preset("tiny")
LENGTHS = np.array([len(text.split()) + 2 if text else 0 for text in TABLE.text])


def known_of(table: ReviewTable, lengths: np.ndarray = LENGTHS) -> KnownReviews:
    return KnownReviews(table, SPLIT.train, lengths, CONFIG)


def histories_of(table: ReviewTable, pairs: np.ndarray, lengths: np.ndarray = LENGTHS) -> Histories:
    known = known_of(table, lengths)
    curve = RatingCurve.of_rises(CONFIG.scale, [0.5, 0.2, 1.0, 1.5])
    usual = known.usual(curve, curve)
    sides = (SideBias(curve=curve, mean=side.mean, shrinkage=2.0) for side in (usual.user, usual.item))
    return known.histories(pairs, BiasModel(mean=3.0, intercept=0.0, user=next(sides), item=next(sides)), usual)


def bias_error(table: ReviewTable) -> float:
    """Leave-one-out error of the fitted bias, as a share of the ratings' variance."""
    known, truth = known_of(table), table.rating[SPLIT.train].astype(np.float64)
    fitted = fit_bias_model(known, SPLIT.train, truth, CONFIG.scale)
    rated = bias_ratings(fitted.model, known.sums(SPLIT.train, fitted.usual))
    return float(np.square(rated - truth).mean() / truth.var())


def with_rating(row: int, rating: float) -> ReviewTable:
    ratings = TABLE.rating.copy()
    ratings[row] = rating
    return replace(TABLE, rating=ratings)


@given(st.integers(0, len(SPLIT.train) - 1), st.sampled_from([1.0, 2.0, 3.0, 4.0, 5.0]))
def test_the_target_rating_changes_nothing_that_its_prediction_reads(position: int, rating: float) -> None:
    row = int(SPLIT.train[position])
    before, after = (histories_of(table, np.array([row])) for table in (TABLE, with_rating(row, rating)))
    assert before.sums.mean == pytest.approx(after.sums.mean, abs=1e-9)
    for side in ("user", "item"):
        for name in ("count", "above_usual"):
            read = [getattr(getattr(histories.sums, side), name) for histories in (before, after)]
            assert read[0] == pytest.approx(read[1], abs=1e-9), (side, name)
        residuals = [getattr(histories, f"{side}_residuals")[0] for histories in (before, after)]
        np.testing.assert_allclose(residuals[0], residuals[1], atol=1e-6)
        assert len(residuals[0]) == len(getattr(before, f"{side}_rows")[0])
    assert row not in before.user_rows[0]
    assert row not in before.item_rows[0]


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_no_history_holds_a_review_of_the_pair_or_of_an_evaluation_part(part: str) -> None:
    pairs = getattr(SPLIT, part)
    found = histories_of(TABLE, pairs)
    known = set(SPLIT.train.tolist())
    for position, pair in enumerate(pairs.tolist()):
        for row in found.user_rows[position].tolist():
            assert TABLE.user[row] == TABLE.user[pair]
            assert TABLE.item[row] != TABLE.item[pair]
            assert row in known
        for row in found.item_rows[position].tolist():
            assert TABLE.item[row] == TABLE.item[pair]
            assert TABLE.user[row] != TABLE.user[pair]
            assert row in known


def test_histories_are_newest_first_and_within_the_budget() -> None:
    config = CONFIG
    found = histories_of(TABLE, SPLIT.test)
    for rows in [*found.user_rows, *found.item_rows]:
        assert (np.diff(rows) < 0).all()  # the table is ordered by time
        assert len(rows) <= config.max_reviews
        assert LENGTHS[rows].sum() <= config.max_rows


def test_a_pairs_own_reviews_take_no_place_in_its_histories() -> None:
    """Lists are cut to what can be read before the pair's own reviews leave them."""
    table = written_again(TABLE, int(SPLIT.train[0]))
    found = histories_of(table, SPLIT.train, np.ones(len(table), dtype=np.int64))  # so that reviews, not rows, are few
    newest_first = SPLIT.train[::-1].tolist()
    for position, pair in enumerate(SPLIT.train.tolist()):
        for side, other in (("user", "item"), ("item", "user")):
            mine, theirs = getattr(table, side), getattr(table, other)
            left = [row for row in newest_first if mine[row] == mine[pair] and theirs[row] != theirs[pair]]
            assert getattr(found, f"{side}_rows")[position].tolist() == left[: CONFIG.max_reviews]


def test_a_pair_of_an_item_that_training_lacks_has_no_rating_of_its_own() -> None:
    """Not even one of the user who stands before it in the tables, of the item that stands last."""
    pairs = [("a", "z"), ("b", "y"), ("b", "new")]
    table = ReviewTable.of(
        Review(user=user, item=item, rating=5.0 - day, text="word", domain="d", timestamp=day)
        for day, (user, item) in enumerate(pairs, start=1)
    )
    known = KnownReviews(table, np.array([0, 1]), np.ones(3, dtype=np.int64), CONFIG)
    curve = RatingCurve.of_rises(CONFIG.scale, [1.0])
    sums = known.sums(np.array([2]), known.usual(curve, curve))
    assert (sums.user.count, sums.item.count, sums.mean) == (1, 0, 3.5)


def test_counts_cover_all_known_reviews_not_only_those_that_fit() -> None:
    found = histories_of(TABLE, SPLIT.test)
    user = np.array(TABLE.user)
    for position, pair in enumerate(SPLIT.test.tolist()):
        assert found.user_count[position] == (user[SPLIT.train] == TABLE.user[pair]).sum()


def written_again(table: ReviewTable, row: int) -> ReviewTable:
    """The table with the next review of the same user made one of the same item as the review at ``row``."""
    other = next(other for other in SPLIT.train.tolist() if other != row and table.user[other] == table.user[row])
    items = list(table.item)
    items[other] = table.item[row]
    return replace(table, item=items)


def test_sums_are_those_of_the_reviews_that_are_left_told_by_the_mean_of_what_is_left() -> None:
    first = int(SPLIT.train[0])
    table = written_again(TABLE, first)
    known = known_of(table)
    curves = [RatingCurve.of_rises(CONFIG.scale, rises) for rises in ([0.5, 0.2, 1.0, 1.5], [1.0])]
    usual = known.usual(*curves)
    pairs = np.concatenate([[first], SPLIT.train[:20], SPLIT.test[:20]])
    sums = known.sums(pairs, usual)
    names = ("user", "item")
    for number, pair in enumerate(pairs.tolist()):
        left = [r for r in SPLIT.train.tolist() if any(getattr(table, n)[r] != getattr(table, n)[pair] for n in names)]
        assert sums.mean[number] == pytest.approx(table.rating[left].mean(dtype=np.float64))
        for name, other, curve in zip(names, names[::-1], curves, strict=True):
            ratings = [
                (getattr(table, other)[r], float(table.rating[r]))
                for r in left
                if getattr(table, name)[r] == getattr(table, name)[pair]
            ]
            mean = float(np.mean([curve(float(table.rating[r])) for r in left]))
            terms = [terms_of_one(getattr(usual, name), *one) for one in ratings]
            above = [level - share * mean for level, share in terms]
            found = getattr(sums, name)
            assert found.count[number] == len(ratings)
            assert found.above_usual[number] == pytest.approx(sum(above), abs=1e-9)


def test_a_pair_from_training_is_read_as_if_training_had_never_had_it() -> None:
    """By brute force: lists, means and what is usual made anew of all other reviews."""
    table = written_again(TABLE, int(SPLIT.train[0]))
    known = known_of(table)
    fitted = fit_bias_model(known, SPLIT.train, table.rating[SPLIT.train].astype(np.float64), CONFIG.scale)
    pairs = np.concatenate([SPLIT.train[:1], SPLIT.train[10::9]])
    found, bias = known.histories(pairs, fitted.model, fitted.usual), fitted.model
    rated = bias_ratings(bias, found.sums)
    for number, pair in enumerate(pairs.tolist()):
        others = [
            row
            for row in SPLIT.train.tolist()
            if (table.user[row], table.item[row]) != (table.user[pair], table.item[pair])
        ]
        without = KnownReviews(table, np.array(others), LENGTHS, CONFIG)
        usual = without.usual(bias.user.curve, bias.item.curve)
        expected = without.histories(np.array([pair]), bias, usual)
        for side in ("user", "item"):
            for name in (f"{side}_rows", f"{side}_residuals"):
                read, alone = getattr(found, name)[number], getattr(expected, name)[0]
                np.testing.assert_allclose(read, alone, atol=1e-6)
        assert rated[number] == pytest.approx(bias_ratings(bias, expected.sums)[0], abs=1e-9)


def test_what_a_pair_costs_does_not_grow_with_the_reviews_of_its_item(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a training part with one item of many reviews costs their square."""
    reckoned: list[float] = []
    looked_through: list[int] = []
    curve_of, without_user = RatingCurve.__call__, histories.without_user

    def counted(curve: RatingCurve, rating: float) -> float:
        reckoned.append(rating)
        return curve_of(curve, rating)

    def noted(reviews: list[ReviewEntry], user: str) -> list[ReviewEntry]:
        looked_through.append(len(reviews))
        return without_user(reviews, user)

    monkeypatch.setattr(RatingCurve, "__call__", counted)
    monkeypatch.setattr(histories, "without_user", noted)
    costs: list[int] = []
    for reviews in (50, 100):
        reckoned.clear()
        table = ReviewTable.of(
            Review(user=f"u{number}", item="i", rating=1.0 + number % 5, text="word", domain="d", timestamp=number)
            for number in range(reviews)
        )
        rows = np.arange(reviews)
        known = KnownReviews(table, rows, np.ones(reviews, dtype=np.int64), CONFIG)
        fitted = fit_bias_model(known, rows, table.rating.astype(np.float64), CONFIG.scale)
        known.histories(rows, fitted.model, fitted.usual)
        costs.append(len(reckoned))
    assert costs[1] < 2.2 * costs[0]
    assert max(looked_through) <= CONFIG.max_reviews + 1


def test_a_single_known_pair_is_its_own_mean() -> None:
    """Nothing is left of the mean without it: taken for 0, the rating itself became what the model adds to the mean."""
    rating = TABLE.rating[:1].astype(np.float64)
    known = KnownReviews(TABLE, np.array([0]), LENGTHS, CONFIG)
    fitted = fit_bias_model(known, np.array([0]), rating, CONFIG.scale)
    assert bias_ratings(fitted.model, known.sums(np.array([0]), fitted.usual)) == pytest.approx(rating)
    stranger = known.sums(np.array([len(TABLE) - 1]), fitted.usual)
    assert fitted.model.rate(stranger.user, stranger.item) == pytest.approx(rating)


def test_a_bias_fitted_on_a_pair_is_not_fitted_to_its_rating() -> None:
    """With ratings that are pure noise, statistics that leak the target would predict it; honest ones cannot."""
    rng = np.random.default_rng(0)
    table = replace(TABLE, rating=rng.integers(1, 6, len(TABLE)).astype(np.float32))
    assert bias_error(table) > 0.98


def test_bias_model_finds_planted_user_and_item_differences() -> None:
    assert bias_error(TABLE) < 0.7


def test_the_fitted_bias_misses_by_nothing_on_average_and_no_other_shrinkage_would_miss_by_less() -> None:
    known, truth = known_of(TABLE), TABLE.rating[SPLIT.train].astype(np.float64)
    fitted = fit_bias_model(known, SPLIT.train, truth, CONFIG.scale)
    sums = known.sums(SPLIT.train, fitted.usual)
    missed = bias_ratings(fitted.model, sums) - truth
    assert missed.mean() == pytest.approx(0.0, abs=1e-9)
    for side in ("user", "item"):
        chosen = getattr(fitted.model, side)
        for shrinkage in bias_fit.SHRINKAGES:
            other = replace(fitted.model, **{side: replace(chosen, shrinkage=shrinkage)})
            assert np.square(bias_ratings(other, sums) - truth).mean() >= np.square(missed).mean()


def test_few_ratings_bend_no_curve() -> None:
    """Each stretch of the scale counts for nearly as much, until there is evidence that it does not."""
    few = SPLIT.train[:40]
    known = KnownReviews(TABLE, few, LENGTHS, CONFIG)
    model = fit_bias_model(known, few, TABLE.rating[few].astype(np.float64), CONFIG.scale).model
    for side in (model.user, model.item):
        rises = np.diff(side.curve.values)
        assert rises.std() < 0.1 * rises.mean()


def test_what_a_rating_counts_for_is_learned() -> None:
    """Users who give two stars rate the rest as those who give one do: only what is above them tells of a habit."""
    rng = np.random.default_rng(1)
    kind = {user: rng.uniform() < 0.5 for user in sorted(set(TABLE.user))}
    lively = np.array([kind[user] for user in TABLE.user])
    chance = rng.uniform(size=len(TABLE))
    ratings = np.where(chance < 0.3, rng.integers(1, 4, len(TABLE)), np.where(lively, 5, 4)).astype(np.float32)
    table = replace(TABLE, rating=ratings)
    fitted = fit_bias_model(known_of(table), SPLIT.train, ratings[SPLIT.train].astype(np.float64), CONFIG.scale)
    rises = np.diff(fitted.model.user.curve.values)
    assert (rises >= 0).all()
    assert rises[3] > 2 * max(rises[0], rises[1])


def test_ratings_in_other_domains_tell_of_their_users() -> None:
    """Planted: what users give here is what they give elsewhere, and here each has few ratings."""
    rng = np.random.default_rng(2)
    users = sorted(set(TABLE.user))
    habit = dict(zip(users, rng.integers(1, 6, len(users)), strict=True))
    ratings = np.array([habit[user] for user in TABLE.user], dtype=np.float32)
    table = replace(TABLE, rating=ratings)
    rows = target_rows(table, ["domain-0"])
    split = random_split(table, rows, seed=1)
    elsewhere = pretraining_rows(table, split, "other-domains", fraction=1.0, seed=0)
    errors = {}
    for name, read in (("here", None), ("elsewhere", elsewhere)):
        known = KnownReviews(table, split.train, LENGTHS, CONFIG, read)
        fitted = fit_bias_model(known, split.train, ratings[split.train].astype(np.float64), CONFIG.scale)
        sums = known.sums(split.test, fitted.usual)
        errors[name] = np.square(fitted.model.rate(sums.user, sums.item) - ratings[split.test]).mean()
    assert errors["elsewhere"] < 0.8 * errors["here"]


def test_a_rating_in_another_domain_counts_for_the_part_that_is_asked_for() -> None:
    split = random_split(TABLE, target_rows(TABLE, ["domain-0"]), seed=1)
    elsewhere = pretraining_rows(TABLE, split, "other-domains", fraction=1.0, seed=0)
    known = KnownReviews(TABLE, split.train[:5], LENGTHS, CONFIG, elsewhere)  # most users are known elsewhere only
    curve = RatingCurve.of_rises(CONFIG.scale, [1.0])
    none, half, whole = (
        known.sums(split.test, known.usual(curve, curve, elsewhere=part)).user for part in (0.0, 0.5, 1.0)
    )
    assert whole.elsewhere.tolist() == [
        sum(TABLE.user[row] == TABLE.user[pair] for row in elsewhere) for pair in split.test.tolist()
    ]
    assert not none.elsewhere.any()
    for name in ("elsewhere", "above_usual"):
        np.testing.assert_allclose(getattr(half, name), (getattr(none, name) + getattr(whole, name)) / 2, atol=1e-9)


@given(st.sampled_from([1.0, 2.0, 3.0, 4.0, 5.0]))
def test_ratings_in_other_domains_are_none_of_the_targets(rating: float) -> None:
    split = random_split(TABLE, target_rows(TABLE, ["domain-0"]), seed=1)
    row = int(split.train[0])
    read = []
    for table in (TABLE, with_rating(row, rating)):
        elsewhere = pretraining_rows(table, split, "other-domains", fraction=1.0, seed=0)
        known = KnownReviews(table, split.train, LENGTHS, CONFIG, elsewhere)
        curve = RatingCurve.of_rises(CONFIG.scale, [1.0])
        read.append(known.sums(np.array([row]), known.usual(curve, curve, elsewhere=0.5)))
    assert read[0].user.above_usual == pytest.approx(read[1].user.above_usual, abs=1e-9)
    assert read[0].item.above_usual == pytest.approx(read[1].item.above_usual, abs=1e-9)


@pytest.mark.parametrize("corpus", ["other-domains", "target", "both"])
def test_pretraining_never_sees_an_evaluation_pair(corpus: str) -> None:
    split = random_split(TABLE, target_rows(TABLE, ["domain-0"]), seed=1)
    rows = pretraining_rows(TABLE, split, corpus, fraction=1.0, seed=0)
    held_out = np.concatenate([split.validation, split.test]).tolist()
    pairs = {(TABLE.user[row], TABLE.item[row]) for row in held_out}
    texts = {(TABLE.user[row], TABLE.text[row]) for row in held_out if TABLE.text[row]}
    assert len(rows)
    for row in rows.tolist():
        assert (TABLE.user[row], TABLE.item[row]) not in pairs
        assert (TABLE.user[row], TABLE.text[row]) not in texts


@pytest.mark.parametrize("copied", [str, str.upper, lambda text: f" {text.replace(' ', '  ')}\n"])
@pytest.mark.parametrize(
    ("answered_in", "copied_to"),
    [("test", "elsewhere"), ("validation", "train"), ("test", "train"), ("train", "elsewhere"), ("train", "train")],
)
def test_an_evaluation_text_copied_to_another_item_is_not_pretrained_on(
    answered_in: str, copied_to: str, copied: Callable[[str], str]
) -> None:
    """Nor, in another domain, one of the training part: it may be an evaluation text of the next split."""
    split = random_split(TABLE, target_rows(TABLE, ["domain-0"]), seed=1)
    places = {"elsewhere": TABLE.rows_of_domains("domain-1").tolist(), "train": split.train.tolist()}
    answer, copy = next(
        (answer, copy)
        for answer in getattr(split, answered_in).tolist()
        for copy in places[copied_to]
        if TABLE.user[copy] == TABLE.user[answer] and copy != answer and TABLE.text[answer]
    )
    texts = list(TABLE.text)
    texts[copy] = copied(TABLE.text[answer])
    rows = pretraining_rows(replace(TABLE, text=texts), split, "both", fraction=1.0, seed=0)
    assert (copy in rows) == (answered_in == copied_to == "train")
    assert copy in pretraining_rows(TABLE, split, "both", fraction=1.0, seed=0)


def test_a_fraction_of_the_corpus_is_drawn_by_seed() -> None:
    split: Split = random_split(TABLE, target_rows(TABLE, ["domain-0"]), seed=1)
    whole = pretraining_rows(TABLE, split, "both", fraction=1.0, seed=0)
    half, again, other = (pretraining_rows(TABLE, split, "both", fraction=0.5, seed=seed) for seed in (0, 0, 1))
    assert len(half) == round(0.5 * len(whole))
    assert (half == again).all()
    assert set(half.tolist()) != set(other.tolist())


def test_residuals_are_those_of_the_lists_that_a_store_holds() -> None:
    """To the last bit, and so for a pair that is rated twice: they are read from columns, not review by review."""
    table = written_again(TABLE, int(SPLIT.train[0]))
    known = known_of(table)
    curves = [RatingCurve.of_rises(CONFIG.scale, rises) for rises in ([0.5, 0.2, 1.0, 1.5], [1.0])]
    usual = known.usual(*curves)
    sides = [SideBias(curve=side.curve, mean=side.mean, shrinkage=2.0) for side in (usual.user, usual.item)]
    bias = BiasModel(mean=3.0, intercept=0.0, user=sides[0], item=sides[1])
    pairs = np.concatenate([SPLIT.train[:30], SPLIT.test[:10]])
    found = known.histories(pairs, bias, usual)
    ratings = table.rating.astype(np.float64)
    users, items = np.array(table.user), np.array(table.item)
    for number, pair in enumerate(pairs.tolist()):
        own = [row for row in SPLIT.train if (users[row], items[row]) == (users[pair], items[pair])]
        for name, other, side in (("user", items, sides[0]), ("item", users, sides[1])):
            counted = sum(side.curve(ratings[row]) for row in own)
            mean = (side.mean * len(SPLIT.train) - counted) / (len(SPLIT.train) - len(own))
            rows = getattr(found, f"{name}_rows")[number].tolist()
            terms = [terms_of_one(getattr(usual, name), other[row], ratings[row]) for row in rows]
            of_entity = side.bias(getattr(found.sums, name))[number]
            expected = np.array([level - share * mean for level, share in terms] - of_entity, dtype=np.float32)
            assert getattr(found, f"{name}_residuals")[number].tolist() == expected.tolist()


def test_the_fit_reckons_with_columns_and_not_rating_by_rating(monkeypatch: pytest.MonkeyPatch) -> None:
    """It sums up all ratings for each stretch of the scale and each weight of other domains: hours for millions."""
    known, truth = known_of(TABLE), TABLE.rating[SPLIT.train].astype(np.float64)
    reckoned: list[float] = []
    curve_of = RatingCurve.__call__

    def counted(curve: RatingCurve, rating: float) -> float:
        reckoned.append(rating)
        return curve_of(curve, rating)

    monkeypatch.setattr(RatingCurve, "__call__", counted)
    fit_bias_model(known, SPLIT.train, truth, CONFIG.scale)
    assert len(reckoned) < 2 * len(SPLIT.train)


def test_the_bias_fitted_to_some_pairs_at_a_time_is_that_of_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    known, truth = known_of(TABLE), TABLE.rating[SPLIT.train].astype(np.float64)
    whole = fit_bias_model(known, SPLIT.train, truth, CONFIG.scale).model
    monkeypatch.setattr(bias_fit, "PAIRS_AT_A_TIME", 50)
    parts = fit_bias_model(known, SPLIT.train, truth, CONFIG.scale).model
    assert (parts.user.shrinkage, parts.item.shrinkage) == (whole.user.shrinkage, whole.item.shrinkage)
    for side in ("user", "item"):
        values = [getattr(model, side).curve.values for model in (parts, whole)]
        assert values[0] == pytest.approx(values[1], abs=1e-9)
