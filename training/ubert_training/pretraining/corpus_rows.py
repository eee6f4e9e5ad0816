"""Which reviews each stage may read (law 5: never those of an evaluation pair)."""

from collections.abc import Sequence, Set
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ubert_model.errors import InputError
from ubert_model.validation import require
from ubert_training.reviews.table import WITHOUT_TEXT, ReviewTable, Rows
from ubert_training.splits import Split

Corpus = Literal["other-domains", "target", "both"]


def target_rows(table: ReviewTable, domains: Sequence[str]) -> Rows:
    """Rows of the target domains; all rows if none are named."""
    return table.rows_of_domains(*domains) if domains else np.arange(len(table))


def pretraining_rows(table: ReviewTable, split: Split, corpus: Corpus, *, fraction: float, seed: int) -> Rows:
    """Tp: reviews that the target's users wrote in other domains, or the target's own training part, or both.

    Leaves out what is :func:`withheld`, and copies of a held-out text by the same user, whatever their case and
    spacing: a review copied to another item would give the answer away. In other domains a copy of any target review
    by the same user is left out, so that what is read there is the same for every split.
    ``fraction`` keeps that share, drawn by seed.

    Raises ``InputError`` if nothing is left.
    """
    require(0 < fraction <= 1, "fraction", fraction, "use a share of the reviews above 0, at most 1")
    rows = allowed_rows(table, split, corpus)
    if not len(rows):
        raise InputError(
            f"corpus {corpus!r} holds no review to pre-train on: the split covers every domain, or its users wrote "
            "nothing in other domains that may be read; use --corpus target, or split with a --target domain"
        )
    kept = np.random.default_rng([seed, 7]).permutation(rows)[: max(1, round(fraction * len(rows)))]
    return np.sort(kept)


def allowed_rows(table: ReviewTable, split: Split, corpus: Corpus) -> Rows:
    """Rows of a corpus that may be learned from, ascending; possibly none."""
    in_target = np.zeros(len(table), dtype=bool)
    in_target[split.rows] = True
    trained = np.zeros(len(table), dtype=bool)
    trained[split.train] = True
    target_users = {table.user[row] for row in split.rows.tolist()}
    of_target_user = np.array([user in target_users for user in table.user], dtype=bool)
    allowed = {
        "other-domains": ~in_target & of_target_user,
        "target": trained,
        "both": (~in_target & of_target_user) | trained,
    }[corpus] & ~withheld(table, split)
    rows = np.flatnonzero(allowed)
    held_out = np.concatenate([split.validation, split.test])
    copied = np.where(trained[rows], _copied(table, rows, held_out), _copied(table, rows, split.rows))
    return rows[~copied]


def withheld(table: ReviewTable, split: Split) -> NDArray[np.bool_]:
    """Mask of the reviews that nothing may be learned from, (R,): the validation and test parts, and in other domains
    any further review of a target pair, by the same user on the same item, whose rating would give the pair's away.

    With a split by time, also reviews in other domains that are newer than the training part, or of unknown time: they
    did not exist yet.
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
    """Rows in other domains than the target of the reviews that pre-training has read, by id; none that is withheld."""
    elsewhere = ~withheld(table, split)
    elsewhere[split.rows] = False
    return np.array([row for row in np.flatnonzero(elsewhere).tolist() if table.review_id[row] in read], dtype=np.int64)


def _copied(table: ReviewTable, rows: Rows, originals: Rows) -> NDArray[np.bool_]:
    """Mask of the reviews at ``rows`` that have the text of one at ``originals`` by the same user, (R,)."""
    written = table.text_digests[originals]
    return np.isin(table.text_digests[rows], written[written != WITHOUT_TEXT])
