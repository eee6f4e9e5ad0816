"""Which reviews of a list a prediction reads.

Law 5 applied to a list. Training and the service also take a pair's own rating out of sums;
``test_a_training_pair_is_read_as_if_it_were_not_in_training`` and
``test_a_leave_one_out_history_equals_that_of_a_list_without_the_review`` hold that both give the same.
"""

from collections.abc import Iterable, Sequence

from ubert_model.review import ReviewEntry, Side


def without_counterpart(side: Side, reviews: Iterable[ReviewEntry], counterpart: str) -> list[ReviewEntry]:
    """A user's reviews except any of this item, or an item's except any by this user (law 5)."""
    return [review for review in reviews if side.counterpart(review) != counterpart]


def select_history(reviews: Sequence[ReviewEntry], *, max_reviews: int, max_rows: int) -> list[ReviewEntry]:
    """The newest reviews that fit into ``max_reviews`` reviews and ``max_rows`` rows of states in all.

    ``reviews`` come newest first. Reviews are taken whole. The first that does not fit ends the selection, so that a
    larger budget always extends a smaller one. Reviews without rows (they have no text) are skipped.
    """
    selected: list[ReviewEntry] = []
    rows = 0
    for review in reviews:
        if not review.rows:
            continue
        rows += review.rows
        if len(selected) == max_reviews or rows > max_rows:
            break
        selected.append(review)
    return selected
