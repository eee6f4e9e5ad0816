"""Which reviews each stage may read (law 5: an evaluation pair is never among them)."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ubert_model.config import require
from ubert_model.errors import InputError
from ubert_training.reviews.table import ReviewTable
from ubert_training.splits import Split

Corpus = Literal["other-domains", "target", "both"]


def target_rows(table: ReviewTable, domains: Sequence[str]) -> NDArray[np.int64]:
    """Rows of the target domains; all rows if none is named."""
    return table.rows_of_domains(*domains) if domains else np.arange(len(table))


def pretraining_rows(
    table: ReviewTable, split: Split, corpus: Corpus, *, fraction: float, seed: int
) -> NDArray[np.int64]:
    """Tp: reviews that users of the target wrote in other domains, or the target's own training part, or both.

    Left out are the target's validation and test pairs, and any review with the text of one by the same user
    (a review copied to another item would give the answer away); in other domains, with the text of any review of the
    target by the same user, so that what is read there is the same for every split. ``fraction`` keeps that share,
    drawn by seed. Raises ``InputError`` if nothing is left.
    """
    require(0 < fraction <= 1, "fraction", fraction, "use a share of the reviews above 0, at most 1")
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
    }[corpus]
    answers = _written(table, np.concatenate([split.validation, split.test]))
    in_target_too = _written(table, split.rows)
    rows = np.array(
        [
            row
            for row in np.flatnonzero(wanted).tolist()
            if (table.user[row], table.text[row]) not in (answers if trained[row] else in_target_too)
        ],
        dtype=np.int64,
    )
    if not len(rows):
        raise InputError(
            f"corpus {corpus!r} holds no review to pre-train on: the split covers every domain, or its users wrote "
            "nothing elsewhere; use --corpus target, or name a --target domain"
        )
    kept = np.random.default_rng([seed, 7]).permutation(rows)[: max(1, round(fraction * len(rows)))]
    return np.sort(kept)


def _written(table: ReviewTable, rows: NDArray[np.int64]) -> set[tuple[str, str]]:
    """User and text of the reviews that have one."""
    return {(table.user[row], table.text[row]) for row in rows.tolist() if table.text[row].strip()}
