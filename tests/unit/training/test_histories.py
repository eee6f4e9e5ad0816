"""Law 5: the target review is never an input, whichever part it belongs to."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.rating_columns import net_of_one
from support.small_corpus import small_table
from ubert_model.config import preset
from ubert_model.history import without_counterpart
from ubert_model.rating.blend import BiasModel
from ubert_model.rating.curve import RatingCurve
from ubert_model.rating.deviations import SideBias, stack_sums
from ubert_model.rating.worth import ReviewWorth
from ubert_model.review import ReviewEntry, Side
from ubert_training.finetuning import bias_fit, histories
from ubert_training.finetuning.bias_fit import bias_ratings, fit_bias_model
from ubert_training.finetuning.histories import Histories, KnownReviews
from ubert_training.pretraining.corpus_rows import Corpus, pretraining_rows, target_rows
from ubert_training.reviews.table import Review, ReviewTable
from ubert_training.splits import Split, random_split

TABLE = small_table()
SPLIT = random_split(TABLE, np.arange(len(TABLE)), seed=0)
CONFIG = preset("tiny")
LENGTHS = np.array([len(text.split()) + 2 if text else 0 for text in TABLE.text])
SURPLUSES = np.random.default_rng(3).normal(0.0, 0.5, len(TABLE)).astype(np.float32).astype(np.float64)
BENT = ReviewWorth(curve=RatingCurve.of_rises(CONFIG.scale, [0.5, 0.2, 1.0, 1.5]), surplus_weight=0.6)
STRAIGHT = ReviewWorth(curve=RatingCurve.of_rises(CONFIG.scale, [1.0]), surplus_weight=0.3)


def known_of(table: ReviewTable, lengths: np.ndarray = LENGTHS, surpluses: np.ndarray = SURPLUSES) -> KnownReviews:
    return KnownReviews(table, SPLIT.train, lengths, CONFIG, surpluses=surpluses)


def histories_of(
    table: ReviewTable, pairs: np.ndarray, lengths: np.ndarray = LENGTHS, surpluses: np.ndarray = SURPLUSES
) -> Histories:
    """Histories under a bias model with a fixed worth and shrinkage."""
    known = known_of(table, lengths, surpluses)
    usual = known.usual(BENT, BENT)
    sides = (SideBias(worth=BENT, mean=side.mean, shrinkage=2.0) for side in (usual.user, usual.item))
    return known.histories(pairs, BiasModel(mean=3.0, intercept=0.0, user=next(sides), item=next(sides)), usual)


def bias_error(table: ReviewTable) -> float:
    """Leave-one-out error of the fitted bias, as a share of the ratings' variance."""
    known, truth = known_of(table), table.rating[SPLIT.train].astype(np.float64)
    fitted = fit_bias_model(known, SPLIT.train, truth, CONFIG.scale)
    rated = bias_ratings(fitted.model, known.sums(SPLIT.train, fitted.usual))
    return float(np.square(rated - truth).mean() / truth.var())


def with_surplus(row: int, surplus: float) -> np.ndarray:
    surpluses = SURPLUSES.copy()
    surpluses[row] = surplus
    return surpluses


def with_rating(row: int, rating: float) -> ReviewTable:
    ratings = TABLE.rating.copy()
    ratings[row] = rating
    return replace(TABLE, rating=ratings)


@given(st.integers(0, len(SPLIT.train) - 1), st.sampled_from([1.0, 2.0, 3.0, 4.0, 5.0]), st.floats(-3, 3, width=32))
def test_the_target_review_changes_nothing_that_its_prediction_reads(
    position: int, rating: float, surplus: float
) -> None:
    row = int(SPLIT.train[position])
    before = histories_of(TABLE, np.array([row]))
    after = histories_of(with_rating(row, rating), np.array([row]), surpluses=with_surplus(row, surplus))
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
    found = histories_of(TABLE, SPLIT.test)
    for rows in (side[pair] for side in (found.user_rows, found.item_rows) for pair in range(len(found))):
        assert (np.diff(rows) < 0).all()  # the table is ordered by time
        assert len(rows) <= CONFIG.max_reviews
        assert LENGTHS[rows].sum() <= CONFIG.max_rows


def test_a_pairs_own_reviews_use_up_none_of_its_budget() -> None:
    """Lists are truncated before the pair's own reviews are removed from them."""
    table = with_repeated_pair(TABLE, int(SPLIT.train[0]))
    one_row_each = np.ones(len(table), dtype=np.int64)  # so that max_reviews is the limit, and not max_rows
    found = histories_of(table, SPLIT.train, one_row_each)
    newest_first = SPLIT.train[::-1].tolist()
    for position, pair in enumerate(SPLIT.train.tolist()):
        for side, other in (("user", "item"), ("item", "user")):
            entity, counterpart = getattr(table, side), getattr(table, other)
            readable = [
                row for row in newest_first if entity[row] == entity[pair] and counterpart[row] != counterpart[pair]
            ]
            assert getattr(found, f"{side}_rows")[position].tolist() == readable[: CONFIG.max_reviews]


def test_a_pair_with_an_unknown_item_has_no_target_rating() -> None:
    """Its key must differ from that of the previous user in the id table with the last item."""
    pairs = [("a", "z"), ("b", "y"), ("b", "new")]
    table = ReviewTable.of(
        Review(user=user, item=item, rating=5.0 - day, text="word", domain="d", timestamp=day)
        for day, (user, item) in enumerate(pairs, start=1)
    )
    known = KnownReviews(table, np.array([0, 1]), np.ones(3, dtype=np.int64), CONFIG)
    sums = known.sums(np.array([2]), known.usual(STRAIGHT, STRAIGHT))
    assert np.concatenate([sums.user.count, sums.item.count, sums.mean]).tolist() == [1, 0, 3.5]


def test_counts_cover_all_known_reviews_and_not_only_those_within_the_budget() -> None:
    found = histories_of(TABLE, SPLIT.test)
    user = np.array(TABLE.user)
    for position, pair in enumerate(SPLIT.test.tolist()):
        assert found.user_count[position] == (user[SPLIT.train] == TABLE.user[pair]).sum()


def with_repeated_pair(table: ReviewTable, row: int) -> ReviewTable:
    """The table in which another training review of the user at ``row`` is made one of the same item."""
    other = next(other for other in SPLIT.train.tolist() if other != row and table.user[other] == table.user[row])
    items = list(table.item)
    items[other] = table.item[row]
    return replace(table, item=items)


def training_rows_without(table: ReviewTable, pair: int) -> list[int]:
    """The training rows except those by the same user on the same item as the row ``pair``."""
    own = (table.user[pair], table.item[pair])
    return [row for row in SPLIT.train.tolist() if (table.user[row], table.item[row]) != own]


def test_sums_and_means_leave_out_the_pairs_own_ratings() -> None:
    first = int(SPLIT.train[0])
    table = with_repeated_pair(TABLE, first)
    known = known_of(table)
    worths = (BENT, STRAIGHT)
    usual = known.usual(*worths)
    pairs = np.concatenate([[first], SPLIT.train[:20], SPLIT.test[:20]])
    sums = known.sums(pairs, usual)
    names = ("user", "item")
    for number, pair in enumerate(pairs.tolist()):
        others = training_rows_without(table, pair)
        assert sums.mean[number] == pytest.approx(table.rating[others].mean(dtype=np.float64))
        for name, other, worth in zip(names, names[::-1], worths, strict=True):
            reviews = [
                (getattr(table, other)[row], float(table.rating[row]), float(SURPLUSES[row]))
                for row in others
                if getattr(table, name)[row] == getattr(table, name)[pair]
            ]
            mean = float(np.mean([worth(float(table.rating[row]), float(SURPLUSES[row])) for row in others]))
            terms = [net_of_one(getattr(usual, name), *one) for one in reviews]
            above = [net_worth - share * mean for net_worth, share in terms]
            found = getattr(sums, name)
            assert found.count[number] == len(reviews)
            assert found.above_usual[number] == pytest.approx(sum(above), abs=1e-9)


def test_a_training_pair_is_read_as_if_it_were_not_in_training() -> None:
    """Compared with brute force: lists, means and usual deviations computed from all other reviews."""
    table = with_repeated_pair(TABLE, int(SPLIT.train[0]))
    known = known_of(table)
    fitted = fit_bias_model(known, SPLIT.train, table.rating[SPLIT.train].astype(np.float64), CONFIG.scale).model
    bias = replace(fitted, item=replace(fitted.item, worth=replace(fitted.item.worth, surplus_weight=0.6)))
    pairs = np.concatenate([SPLIT.train[:1], SPLIT.train[10::9]])
    found = known.histories(pairs, bias, known.usual(bias.user.worth, bias.item.worth))
    rated = bias_ratings(bias, found.sums)
    for number, pair in enumerate(pairs.tolist()):
        others = np.array(training_rows_without(table, pair))
        without = KnownReviews(table, others, LENGTHS, CONFIG, surpluses=SURPLUSES)
        usual = without.usual(bias.user.worth, bias.item.worth)
        expected = without.histories(np.array([pair]), bias, usual)
        for side in ("user", "item"):
            for name in (f"{side}_rows", f"{side}_residuals"):
                read, brute_force = getattr(found, name)[number], getattr(expected, name)[0]
                np.testing.assert_allclose(read, brute_force, atol=1e-6)
        assert rated[number] == pytest.approx(bias_ratings(bias, expected.sums)[0], abs=1e-9)


def test_the_means_of_a_bundle_move_the_served_rating_of_a_training_pair_by_at_most_its_share() -> None:
    """Serving drops the pair's own review from both lists, but the frozen means hold its rating, one of many."""
    train, known = SPLIT.train, known_of(TABLE)
    fitted = fit_bias_model(known, train, TABLE.rating[train].astype(np.float64), CONFIG.scale)
    without_itself = bias_ratings(fitted.model, known.sums(train, fitted.usual))
    entries = [TABLE.entry(row, 1, float(SURPLUSES[row])) for row in train.tolist()]
    served = []
    for target in entries:
        user, item = (
            fitted.usual.sums(
                side,
                side.entity(target),
                [
                    entry
                    for entry in entries
                    if side.entity(entry) == side.entity(target) and side.counterpart(entry) != side.counterpart(target)
                ],
            )
            for side in Side
        )
        served.append(fitted.model.rate(stack_sums([user]), stack_sums([item]))[0])
    moved = np.abs(np.array(served) - without_itself)
    assert 0 < moved.max() <= (CONFIG.scale.highest - CONFIG.scale.lowest) / len(train)


def test_the_curves_stay_small_where_no_history_tells_anything() -> None:
    """Many users with one review each of one item: the fit's columns hold rounding errors alone."""
    ratings = np.random.default_rng(0).choice([1.0, 2.0, 3.0, 4.0, 5.0], 30)
    table = ReviewTable.of(
        Review(user=f"u{row}", item="i", rating=rating, text="", domain="d", timestamp=row)
        for row, rating in enumerate(ratings.tolist())
    )
    rows = np.arange(len(table))
    fitted = fit_bias_model(KnownReviews(table, rows, np.zeros(len(table), int), CONFIG), rows, ratings, CONFIG.scale)
    width = CONFIG.scale.highest - CONFIG.scale.lowest
    assert all(side.worth.curve(CONFIG.scale.highest) < width for side in (fitted.model.user, fitted.model.item))


@pytest.fixture
def evaluated_ratings(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The ratings that a curve was evaluated at one by one, in order."""
    ratings: list[float] = []
    evaluate = RatingCurve.__call__

    def recorded(curve: RatingCurve, rating: float) -> float:
        ratings.append(rating)
        return evaluate(curve, rating)

    monkeypatch.setattr(RatingCurve, "__call__", recorded)
    return ratings


def test_the_cost_of_a_pair_does_not_grow_with_the_reviews_of_its_item(
    evaluated_ratings: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the cost of an item's training pairs would grow with the square of their number."""
    filtered: list[int] = []

    def recorded(side: Side, reviews: list[ReviewEntry], counterpart: str) -> list[ReviewEntry]:
        if side is Side.ITEM:
            filtered.append(len(reviews))
        return without_counterpart(side, reviews, counterpart)

    monkeypatch.setattr(histories, "without_counterpart", recorded)
    evaluations: list[int] = []
    for reviews in (50, 100):
        evaluated_ratings.clear()
        table = ReviewTable.of(
            Review(user=f"u{number}", item="i", rating=1.0 + number % 5, text="word", domain="d", timestamp=number)
            for number in range(reviews)
        )
        rows = np.arange(reviews)
        known = KnownReviews(table, rows, np.ones(reviews, dtype=np.int64), CONFIG)
        fitted = fit_bias_model(known, rows, table.rating.astype(np.float64), CONFIG.scale)
        known.histories(rows, fitted.model, fitted.usual)
        evaluations.append(len(evaluated_ratings))
    assert evaluations[1] < 2.2 * evaluations[0]
    assert max(filtered) <= CONFIG.max_reviews + 1


def test_the_mean_for_a_single_known_pair_is_its_own_rating() -> None:
    """No rating is left for a leave-one-out mean; with a mean of 0, the intercept would be fitted to the rating."""
    rating = TABLE.rating[:1].astype(np.float64)
    known = KnownReviews(TABLE, np.array([0]), LENGTHS, CONFIG)
    fitted = fit_bias_model(known, np.array([0]), rating, CONFIG.scale)
    assert bias_ratings(fitted.model, known.sums(np.array([0]), fitted.usual)) == pytest.approx(rating)
    unknown = known.sums(np.array([len(TABLE) - 1]), fitted.usual)
    assert fitted.model.rate(unknown.user, unknown.item) == pytest.approx(rating)


def test_the_bias_model_explains_nothing_of_random_ratings() -> None:
    """It could only if its statistics leaked the target rating."""
    rng = np.random.default_rng(0)
    table = replace(TABLE, rating=rng.integers(1, 6, len(TABLE)).astype(np.float32))
    assert bias_error(table) > 0.98


def test_the_bias_model_finds_planted_user_and_item_differences() -> None:
    assert bias_error(TABLE) < 0.7


def test_the_fitted_bias_has_a_mean_error_of_0_and_the_best_shrinkages() -> None:
    known, truth = known_of(TABLE), TABLE.rating[SPLIT.train].astype(np.float64)
    fitted = fit_bias_model(known, SPLIT.train, truth, CONFIG.scale)
    sums = known.sums(SPLIT.train, fitted.usual)
    errors = bias_ratings(fitted.model, sums) - truth
    assert errors.mean() == pytest.approx(0.0, abs=1e-9)
    for side in ("user", "item"):
        chosen = getattr(fitted.model, side)
        for shrinkage in bias_fit.SHRINKAGES:
            other = replace(fitted.model, **{side: replace(chosen, shrinkage=shrinkage)})
            assert np.square(bias_ratings(other, sums) - truth).mean() >= np.square(errors).mean()


def test_the_curves_fitted_to_few_ratings_are_nearly_straight() -> None:
    """The prior is that every segment of the scale counts the same."""
    few = SPLIT.train[:40]
    known = KnownReviews(TABLE, few, LENGTHS, CONFIG)
    model = fit_bias_model(known, few, TABLE.rating[few].astype(np.float64), CONFIG.scale).model
    for side in (model.user, model.item):
        rises = np.diff(side.worth.curve.values)
        assert rises.std() < 0.1 * rises.mean()


def test_the_curve_learns_how_much_each_segment_of_the_scale_counts() -> None:
    """Planted: 1 to 3 stars are given at random; only whether a user gives 4 or 5 distinguishes users."""
    rng = np.random.default_rng(1)
    gives_five = {user: rng.uniform() < 0.5 for user in sorted(set(TABLE.user))}
    highest = np.array([5 if gives_five[user] else 4 for user in TABLE.user])
    ratings = np.where(rng.uniform(size=len(TABLE)) < 0.3, rng.integers(1, 4, len(TABLE)), highest).astype(np.float32)
    table = replace(TABLE, rating=ratings)
    fitted = fit_bias_model(known_of(table), SPLIT.train, ratings[SPLIT.train].astype(np.float64), CONFIG.scale)
    rises = np.diff(fitted.model.user.worth.curve.values)
    assert (rises >= 0).all()
    assert rises[3] > 2 * max(rises[0], rises[1])


def telling_surpluses() -> np.ndarray:
    """What each item is usually rated above the others, and noise."""
    items = np.array(TABLE.item)
    quality = {item: TABLE.rating[items == item].mean() - TABLE.rating.mean() for item in set(TABLE.item)}
    return np.array([quality[item] for item in TABLE.item]) + SURPLUSES


def test_surpluses_count_on_the_items_side_as_far_as_they_tell_something() -> None:
    truth = TABLE.rating[SPLIT.train].astype(np.float64)
    telling, noise, none = (
        fit_bias_model(known_of(TABLE, surpluses=surpluses), SPLIT.train, truth, CONFIG.scale).model
        for surpluses in (telling_surpluses(), SURPLUSES, np.zeros(len(TABLE)))
    )
    assert telling.item.worth.surplus_weight > 0.2
    assert noise.item.worth.surplus_weight < 0.1
    assert none.item.worth.surplus_weight == telling.user.worth.surplus_weight == 0


def test_ratings_in_other_domains_improve_the_bias_of_their_users() -> None:
    """Planted: every user always gives the same rating, and has few ratings in the target."""
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


def test_every_review_that_pretraining_has_read_elsewhere_counts() -> None:
    split = random_split(TABLE, target_rows(TABLE, ["domain-0"]), seed=1)
    elsewhere = pretraining_rows(TABLE, split, "other-domains", fraction=1.0, seed=0)
    few = split.train[:5]  # so that most users are known elsewhere only
    known = KnownReviews(TABLE, few, LENGTHS, CONFIG, elsewhere, SURPLUSES)
    sums = known.sums(split.test, known.usual(STRAIGHT, STRAIGHT)).user
    for read, found in ((few, sums.count), (elsewhere, sums.elsewhere)):
        by_user = Counter(TABLE.user[row] for row in read.tolist())
        assert np.asarray(found).tolist() == [by_user[TABLE.user[pair]] for pair in split.test.tolist()]


def test_the_sums_of_a_target_pair_are_the_same_among_all_reviews_everywhere() -> None:
    split = random_split(TABLE, target_rows(TABLE, ["domain-0"]), seed=1)
    elsewhere = pretraining_rows(TABLE, split, "other-domains", fraction=1.0, seed=0)
    known = KnownReviews(TABLE, split.train, LENGTHS, CONFIG, elsewhere, SURPLUSES)
    everywhere = known.everywhere()
    for pairs in (split.train, split.test):
        found, expected = (which.sums(pairs, which.usual(STRAIGHT, BENT)) for which in (known, everywhere))
        np.testing.assert_allclose(found.mean, expected.mean, atol=1e-12)
        for side in ("user", "item"):
            ours, theirs = (getattr(sums, side) for sums in (found, expected))
            np.testing.assert_allclose(ours.above_usual, theirs.above_usual, atol=1e-9)
            np.testing.assert_array_equal(ours.count + ours.elsewhere, theirs.count)


def test_a_small_target_takes_its_curves_from_other_domains_where_it_has_none_to_tell() -> None:
    split = random_split(TABLE, target_rows(TABLE, ["domain-0"]), seed=1)
    elsewhere = pretraining_rows(TABLE, split, "other-domains", fraction=1.0, seed=0)
    ratings = TABLE.rating.astype(np.float64)
    few, pairs = split.train[:3], np.concatenate([split.train[:3], elsewhere])
    ours = fit_bias_model(KnownReviews(TABLE, few, LENGTHS, CONFIG, elsewhere), few, ratings[few], CONFIG.scale).model
    all_alike = KnownReviews(TABLE, np.sort(pairs), LENGTHS, CONFIG)
    # The three target pairs count as four each.
    repeated = np.concatenate([pairs, np.tile(few, 3)])
    theirs = fit_bias_model(all_alike, repeated, ratings[repeated], CONFIG.scale).model
    assert ours.mean == pytest.approx(ratings[pairs].mean())
    assert ours.intercept == pytest.approx(theirs.intercept, abs=1e-6)
    for side in Side:
        assert ours.on(side).shrinkage == theirs.on(side).shrinkage
        assert ours.on(side).worth.curve.values == pytest.approx(theirs.on(side).worth.curve.values, abs=1e-6)


@given(st.sampled_from([1.0, 2.0, 3.0, 4.0, 5.0]))
def test_with_other_domains_the_target_rating_still_changes_no_sum(rating: float) -> None:
    split = random_split(TABLE, target_rows(TABLE, ["domain-0"]), seed=1)
    row = int(split.train[0])
    read = []
    for table in (TABLE, with_rating(row, rating)):
        elsewhere = pretraining_rows(table, split, "other-domains", fraction=1.0, seed=0)
        known = KnownReviews(table, split.train, LENGTHS, CONFIG, elsewhere, SURPLUSES)
        read.append(known.sums(np.array([row]), known.usual(STRAIGHT, STRAIGHT)))
    assert read[0].user.above_usual == pytest.approx(read[1].user.above_usual, abs=1e-9)
    assert read[0].item.above_usual == pytest.approx(read[1].item.above_usual, abs=1e-9)


@pytest.mark.parametrize("corpus", ["other-domains", "target", "both"])
def test_pretraining_never_sees_an_evaluation_pair(corpus: Corpus) -> None:
    split = random_split(TABLE, target_rows(TABLE, ["domain-0"]), seed=1)
    rows = pretraining_rows(TABLE, split, corpus, fraction=1.0, seed=0)
    held_out = np.concatenate([split.validation, split.test]).tolist()
    pairs = {(TABLE.user[row], TABLE.item[row]) for row in held_out}
    texts = {(TABLE.user[row], TABLE.text[row]) for row in held_out if TABLE.text[row]}
    assert len(rows)
    for row in rows.tolist():
        assert (TABLE.user[row], TABLE.item[row]) not in pairs
        assert (TABLE.user[row], TABLE.text[row]) not in texts


@pytest.mark.parametrize("copy_text", [str, str.upper, lambda text: f" {text.replace(' ', '  ')}\n"])
@pytest.mark.parametrize(
    ("original_in", "copied_to"),
    [("test", "elsewhere"), ("validation", "train"), ("test", "train"), ("train", "elsewhere"), ("train", "train")],
)
def test_an_evaluation_text_copied_to_another_item_is_not_pretrained_on(
    original_in: str, copied_to: str, copy_text: Callable[[str], str]
) -> None:
    """In another domain, neither is a copied training text: it may be an evaluation text of another split."""
    split = random_split(TABLE, target_rows(TABLE, ["domain-0"]), seed=1)
    places = {"elsewhere": TABLE.rows_of_domains("domain-1").tolist(), "train": split.train.tolist()}
    original, copy = next(
        (original, copy)
        for original in getattr(split, original_in).tolist()
        for copy in places[copied_to]
        if TABLE.user[copy] == TABLE.user[original] and copy != original and TABLE.text[original]
    )
    texts = list(TABLE.text)
    texts[copy] = copy_text(TABLE.text[original])
    rows = pretraining_rows(replace(TABLE, text=texts), split, "both", fraction=1.0, seed=0)
    assert (copy in rows) == (original_in == copied_to == "train")
    assert copy in pretraining_rows(TABLE, split, "both", fraction=1.0, seed=0)


def test_a_fraction_of_the_corpus_is_drawn_by_seed() -> None:
    split: Split = random_split(TABLE, target_rows(TABLE, ["domain-0"]), seed=1)
    whole = pretraining_rows(TABLE, split, "both", fraction=1.0, seed=0)
    half, again, other = (pretraining_rows(TABLE, split, "both", fraction=0.5, seed=seed) for seed in (0, 0, 1))
    assert len(half) == round(0.5 * len(whole))
    assert (half == again).all()
    assert set(half.tolist()) != set(other.tolist())


def test_residuals_computed_by_column_equal_those_computed_review_by_review() -> None:
    """Bit for bit, also for a pair with two reviews; the service computes them review by review."""
    table = with_repeated_pair(TABLE, int(SPLIT.train[0]))
    known = known_of(table)
    usual = known.usual(BENT, STRAIGHT)
    sides = [SideBias(worth=side.worth, mean=side.mean, shrinkage=2.0) for side in (usual.user, usual.item)]
    bias = BiasModel(mean=3.0, intercept=0.0, user=sides[0], item=sides[1])
    pairs = np.concatenate([SPLIT.train[:30], SPLIT.test[:10]])
    found = known.histories(pairs, bias, usual)
    ratings = table.rating.astype(np.float64)
    users, items = np.array(table.user), np.array(table.item)
    for number, pair in enumerate(pairs.tolist()):
        own = [row for row in SPLIT.train if (users[row], items[row]) == (users[pair], items[pair])]
        for name, other, side in (("user", items, sides[0]), ("item", users, sides[1])):
            left_out = sum(side.worth(ratings[row], SURPLUSES[row]) for row in own)
            mean = (side.mean * len(SPLIT.train) - left_out) / (len(SPLIT.train) - len(own))
            rows = getattr(found, f"{name}_rows")[number].tolist()
            terms = [net_of_one(getattr(usual, name), other[row], ratings[row], SURPLUSES[row]) for row in rows]
            of_entity = side.bias(getattr(found.sums, name))[number]
            expected = np.array([net_worth - share * mean for net_worth, share in terms] - of_entity, dtype=np.float32)
            assert getattr(found, f"{name}_residuals")[number].tolist() == expected.tolist()


def test_the_fit_evaluates_curves_by_column(evaluated_ratings: list[float]) -> None:
    """It sums all ratings once per segment: one by one, millions would take hours."""
    known, truth = known_of(TABLE), TABLE.rating[SPLIT.train].astype(np.float64)
    evaluated_ratings.clear()
    fit_bias_model(known, SPLIT.train, truth, CONFIG.scale)
    assert len(evaluated_ratings) < 2 * len(SPLIT.train)


def test_the_bias_fitted_in_chunks_of_pairs_equals_that_of_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    known, truth = known_of(TABLE, surpluses=telling_surpluses()), TABLE.rating[SPLIT.train].astype(np.float64)
    whole = fit_bias_model(known, SPLIT.train, truth, CONFIG.scale).model
    monkeypatch.setattr(bias_fit, "PAIRS_AT_A_TIME", 50)
    in_chunks = fit_bias_model(known, SPLIT.train, truth, CONFIG.scale).model
    assert (in_chunks.user.shrinkage, in_chunks.item.shrinkage) == (whole.user.shrinkage, whole.item.shrinkage)
    assert in_chunks.item.worth.surplus_weight == pytest.approx(whole.item.worth.surplus_weight, abs=1e-9) != 0
    for side in ("user", "item"):
        values = [getattr(model, side).worth.curve.values for model in (in_chunks, whole)]
        assert values[0] == pytest.approx(values[1], abs=1e-9)
