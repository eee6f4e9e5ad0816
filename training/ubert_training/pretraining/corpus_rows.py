"""Which reviews each stage may read (law 5: an evaluation pair is never among them)."""

from collections.abc import Sequence, Set
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ubert_model.config import require
from ubert_model.errors import InputError
from ubert_training.reviews.table import NOTHING_WRITTEN, ReviewTable, Rows
from ubert_training.splits import Split

Corpus = Literal["other-domains", "target", "both"]
LEAST_READABLE = 2
"""Reviews with text: one to learn from, one to watch."""


def target_rows(table: ReviewTable, domains: Sequence[str]) -> Rows:
    """Rows of the target domains; all rows if none is named."""
    return table.rows_of_domains(*domains) if domains else np.arange(len(table))


def pretraining_rows(table: ReviewTable, split: Split, corpus: Corpus, *, fraction: float, seed: int) -> Rows:
    """Tp: reviews that users of the target wrote in other domains, or the target's own training part, or both.

    Left out is what is :func:`withheld`, and any review with the text of a validation or test pair by the same user
    (a review copied to another item would give the answer away), be it in another case or spacing; in other domains,
    with the text of any review of the target by the same user, so that what is read there is the same for every split.
    ``fraction`` keeps that share, drawn by seed.

    Raises ``InputError`` if nothing is left, or too little of it has text.
    """
    require(0 < fraction <= 1, "fraction", fraction, "use a share of the reviews above 0, at most 1")
    rows = allowed_rows(table, split, corpus)
    if not len(rows):
        raise InputError(
            f"corpus {corpus!r} holds no review to pre-train on: the split covers every domain, or its users wrote "
            "nothing elsewhere that it may read; use --corpus target, or name a --target domain"
        )
    kept = np.random.default_rng([seed, 7]).permutation(rows)[: max(1, round(fraction * len(rows)))]
    readable = np.count_nonzero(table.writings[kept])
    if readable < LEAST_READABLE:
        raise InputError(
            f"{readable} of the {len(kept)} reviews of corpus {corpus!r} have text, and pre-training takes "
            f"{LEAST_READABLE}, one of them to watch: use more of them, or fine-tune without --pretrained"
        )
    return np.sort(kept)


def allowed_rows(table: ReviewTable, split: Split, corpus: Corpus) -> Rows:
    """Rows of a corpus that may be learned from, ascending; perhaps none."""
    in_target = np.zeros(len(table), dtype=bool)
    in_target[split.rows] = True
    trained = np.zeros(len(table), dtype=bool)
    trained[split.train] = True
    target_users = {table.user[row] for row in split.rows.tolist()}
    of_target_user = np.array([user in target_users for user in table.user], dtype=bool)
    wanted = {
        "other-domains": ~in_target & of_target_user,
        "target": trained,
        "both": (~in_target & of_target_user) | trained,
    }[corpus] & ~withheld(table, split)
    rows = np.flatnonzero(wanted)
    held_out = np.concatenate([split.validation, split.test])
    copied = np.where(trained[rows], _copied(table, rows, held_out), _copied(table, rows, split.rows))
    return rows[~copied]


def withheld(table: ReviewTable, split: Split) -> NDArray[np.bool_]:
    """Which reviews nothing may be learned from, (R,): the validation and test parts, and of other domains the reviews
    that a user of a pair of the target wrote on its item, whose ratings would give the pair's away.

    With a split by time also what in other domains is newer than the training part, or of unknown time: nobody had it.
    """
    out = np.ones(len(table), dtype=bool)
    out[split.train] = False
    in_target = np.zeros(len(table), dtype=bool)
    in_target[split.rows] = True
    pairs = {(table.user[row], table.item[row]) for row in split.rows.tolist()}
    elsewhere = np.flatnonzero(~in_target)
    out[elsewhere] = [(table.user[row], table.item[row]) in pairs for row in elsewhere.tolist()]
    if split.kind == "time":
        when = table.timestamp[elsewhere]
        out[elsewhere] |= (when > table.timestamp[split.train].max()) | (when == 0)
    return out


def rows_elsewhere(table: ReviewTable, split: Split, read: Set[str]) -> Rows:
    """Rows of the reviews whose ids pre-training has read and that are not of the target domain; none that is
    withheld.
    """
    elsewhere = ~withheld(table, split)
    elsewhere[split.rows] = False
    return np.array([row for row in np.flatnonzero(elsewhere).tolist() if table.review_id[row] in read], dtype=np.int64)


def _copied(table: ReviewTable, rows: Rows, originals: Rows) -> NDArray[np.bool_]:
    """Which of the reviews at ``rows`` have the text of one at ``originals`` by the same user, (R,)."""
    written = table.writings[originals]
    return np.isin(table.writings[rows], written[written != NOTHING_WRITTEN])
