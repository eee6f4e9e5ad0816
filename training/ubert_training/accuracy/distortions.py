"""Reviews distorted on purpose: what a model then loses is what it had learned from them."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ubert_model.validation import require, require_choice
from ubert_training.reviews.table import ReviewTable
from ubert_training.splits import Split

Texts = Literal["kept", "one word", "shuffled"]
ONE_WORD = "review"


@dataclass(frozen=True, kw_only=True)
class Distortion:
    """What becomes of the texts, and which ``share`` of the reviews outside validation and test is kept.

    ``one word``: every text is the same word. (Without any text the network would not be used, and what it makes of
    ratings and their number would be lost, too.) ``shuffled``: texts are permuted within each domain, ratings stay.
    """

    texts: Texts = "kept"
    share: float = 1.0

    def __post_init__(self) -> None:
        require_choice("texts", self.texts, Texts)
        require(0 < self.share <= 1, "share", self.share, "keep a share of the reviews above 0, at most 1")


def distorted(table: ReviewTable, split: Split, distortion: Distortion, seed: int) -> tuple[ReviewTable, Split]:
    """The table and split that a distorted model trains on; the pairs of validation and test stay the same.

    A table is identified by its reviews' ids, not by the texts changed here: results of a distorted table must be
    stored under the distortion, too.
    """
    if distortion.texts != "kept":
        table = replace(table, text=_texts(table, distortion.texts, seed))
    if distortion.share == 1.0:
        return table, split
    held_out = np.concatenate([split.validation, split.test])
    others = np.setdiff1d(np.arange(len(table)), held_out)
    in_train = np.isin(others, split.train)
    sampled = [_sample(part, distortion.share, seed) for part in (others[in_train], others[~in_train])]
    kept = np.sort(np.concatenate([held_out, *sampled]))
    train, validation, test = (
        np.searchsorted(kept, rows[np.isin(rows, kept)]) for rows in (split.train, split.validation, split.test)
    )
    return table.subset(kept), replace(split, train=train, validation=validation, test=test)


def _texts(table: ReviewTable, texts: Texts, seed: int) -> list[str]:
    if texts == "one word":
        return [ONE_WORD] * len(table)
    changed = list(table.text)
    rng = np.random.default_rng([seed, 23])
    for domain in table.domains:
        rows = table.rows_of_domains(domain)
        for row, source in zip(rows.tolist(), rng.permutation(rows).tolist(), strict=True):
            changed[row] = table.text[source]
    return changed


def _sample(rows: NDArray[np.int64], share: float, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, 29]).permutation(rows)[: max(1, round(share * len(rows)))]
