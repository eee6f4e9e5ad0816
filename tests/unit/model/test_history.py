"""Law 5 and the selection of a history: which reviews a prediction reads."""

from hypothesis import given
from hypothesis import strategies as st

from ubert_model.history import select_history, without_counterpart
from ubert_model.review import ReviewEntry, Side

names = st.sampled_from("abcd")
entries = st.builds(
    ReviewEntry,
    review_id=st.uuids().map(str),
    user=names,
    item=names,
    rating=st.floats(1, 5),
    timestamp=st.integers(0, 5),
    rows=st.integers(0, 12),
)
review_lists = st.lists(entries, max_size=12).map(
    lambda reviews: sorted(reviews, key=lambda review: review.recency, reverse=True)
)
budgets = st.tuples(st.integers(1, 8), st.integers(1, 60))


def selected(reviews: list[ReviewEntry], budget: tuple[int, int]) -> list[ReviewEntry]:
    return select_history(reviews, max_reviews=budget[0], max_rows=budget[1])


@given(reviews=review_lists, user=names, item=names)
def test_the_review_of_a_pair_is_on_neither_side_of_its_own_prediction(
    reviews: list[ReviewEntry], user: str, item: str
) -> None:
    of_user = [review for review in reviews if review.user == user]
    of_item = [review for review in reviews if review.item == item]
    read = without_counterpart(Side.USER, of_user, item) + without_counterpart(Side.ITEM, of_item, user)
    assert all((review.user, review.item) != (user, item) for review in read)
    targets = sum((review.user, review.item) == (user, item) for review in reviews)
    assert len(read) == len(of_user) + len(of_item) - 2 * targets


@given(reviews=review_lists, target=names)
def test_leaving_a_review_out_keeps_the_order_of_the_others(reviews: list[ReviewEntry], target: str) -> None:
    for kept in (without_counterpart(Side.USER, reviews, target), without_counterpart(Side.ITEM, reviews, target)):
        positions = [reviews.index(review) for review in kept]
        assert positions == sorted(positions)


@given(reviews=review_lists, budget=budgets)
def test_a_selection_keeps_within_both_budgets_and_holds_only_reviews_with_rows(
    reviews: list[ReviewEntry], budget: tuple[int, int]
) -> None:
    selection = selected(reviews, budget)
    assert len(selection) <= budget[0]
    assert sum(review.rows for review in selection) <= budget[1]
    assert all(review.rows for review in selection)


@given(reviews=review_lists, budget=budgets)
def test_a_selection_is_the_newest_reviews_without_a_gap(reviews: list[ReviewEntry], budget: tuple[int, int]) -> None:
    with_rows = [review for review in reviews if review.rows]
    selection = selected(reviews, budget)
    assert selection == with_rows[: len(selection)]


@given(reviews=review_lists, budget=budgets)
def test_a_selection_ends_only_where_the_next_review_does_not_fit(
    reviews: list[ReviewEntry], budget: tuple[int, int]
) -> None:
    selection = selected(reviews, budget)
    rest = [review for review in reviews if review.rows][len(selection) :]
    rows = sum(review.rows for review in selection)
    assert not rest or len(selection) == budget[0] or rows + rest[0].rows > budget[1]


@given(reviews=review_lists, budget=budgets, more=st.tuples(st.integers(0, 4), st.integers(0, 30)))
def test_a_larger_budget_extends_a_selection_and_never_replaces_a_part_of_it(
    reviews: list[ReviewEntry], budget: tuple[int, int], more: tuple[int, int]
) -> None:
    small = selected(reviews, budget)
    large = selected(reviews, (budget[0] + more[0], budget[1] + more[1]))
    assert large[: len(small)] == small


@given(reviews=review_lists, user=names, item=names)
def test_without_the_target_a_list_is_as_if_it_was_never_written(
    reviews: list[ReviewEntry], user: str, item: str
) -> None:
    target = ReviewEntry(review_id="target", user=user, item=item, rating=5.0, timestamp=9, rows=3)
    kept = without_counterpart(Side.USER, [target, *reviews], item)
    assert kept == without_counterpart(Side.USER, reviews, item)
