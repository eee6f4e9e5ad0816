"""Copies between domains: a text that its writer also posted on another item."""

from ubert_training.pretraining.corpus_rows import pretraining_rows, target_rows
from ubert_training.reviews.table import Review, ReviewTable
from ubert_training.splits import random_split

HERE, THERE = "here", "there"


def test_what_is_read_in_other_domains_is_the_same_for_every_split() -> None:
    """A copy of a target review is not read there even where the split trains on the original."""
    reviews = []
    for user in range(8):
        for item in range(6):
            text = f"Thing number {item}, says {user}."
            reviews.append(Review(user=f"u{user}", item=f"i{item}", rating=4.0, text=text, domain=HERE))
        for item, text in (("copied", f"thing  number {user % 6}, SAYS {user}."), ("own", f"Another, says {user}.")):
            reviews.append(Review(user=f"u{user}", item=item, rating=4.0, text=text, domain=THERE))
    table = ReviewTable.of(reviews)
    for seed in range(3):
        split = random_split(table, target_rows(table, [HERE]), seed=seed)
        rows = pretraining_rows(table, split, "both", fraction=1.0, seed=0).tolist()
        assert {table.item[row] for row in rows if table.domain[row] == THERE} == {"own"}
