"""Reviews made worse on purpose: what a model loses then is what it had learned from them."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ubert_model.config import require, require_choice
from ubert_training.reviews.table import ReviewTable
from ubert_training.splits import Split

Texts = Literal["kept", "one word", "shuffled"]
ONE_WORD = "review"


@dataclass(frozen=True, kw_only=True)
class Distortion:
    """What becomes of the texts, and which ``share`` of the reviews outside validation and test is kept.

    ``one word``: every text is the same word. Without any text the network would be silent, and its reading of
    ratings and of their number be lost with the text. ``shuffled``: within each domain the texts change places,
    ratings stay where they are.
    """

    texts: Texts = "kept"
    share: float = 1.0

    def __post_init__(self) -> None:
        require_choice("texts", self.texts, Texts)
        require(0 < self.share <= 1, "share", self.share, "keep a share of the reviews above 0, at most 1")


def distorted(table: ReviewTable, split: Split, distortion: Distortion, seed: int) -> tuple[ReviewTable, Split]:
    """The table and split that a distorted model trains on; the pairs of validation and test stay the same.

    A table is known by its reviews' ids, which say nothing of a text changed here: whoever keeps results of a
    distorted table must keep the distortion with them.
    """
    if distortion.texts != "kept":
        table = replace(table, text=_texts(table, distortion.texts, seed))
    if distortion.share == 1.0:
        return table, split
    held_out = np.concatenate([split.validation, split.test])
    others = np.setdiff1d(np.arange(len(table)), held_out)
    in_train = np.isin(others, split.train)
    kept = np.sort(
        np.concatenate(
            [held_out, *(_drawn(part, distortion.share, seed) for part in (others[in_train], others[~in_train]))]
        )
    )
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


def _drawn(rows: NDArray[np.int64], share: float, seed: int) -> NDArray[np.int64]:
    if not len(rows):
        return rows
    drawn = np.random.default_rng([seed, 29]).permutation(rows)
    return drawn[: max(1, round(share * len(rows)))]
