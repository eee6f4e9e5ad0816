"""Law 5, over whole runs and byte by byte: what a held-out review says reaches nothing that training leaves."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from support.small_corpus import small_table
from ubert_model.config import ModelConfig, preset
from ubert_training.finetuning.finetune import finetune
from ubert_training.finetuning.finetune_options import FinetuneOptions, Mode
from ubert_training.finetuning.rating_parts import RATING
from ubert_training.optimization.loop import LoopOptions
from ubert_training.pretraining.corpus_rows import withheld
from ubert_training.pretraining.lexicon import Lexicon
from ubert_training.pretraining.pretrain import pretrain
from ubert_training.pretraining.pretrain_options import PretrainOptions
from ubert_training.reviews.table import ReviewTable, Rows
from ubert_training.running.stage import STAGE_FILE
from ubert_training.splits import random_split

LEXICON = Lexicon(words=frozenset({"good", "excellent", "terrible", "weak", "decent", "love"}), source="the test")
LAST_EPOCH_KEPT = LoopOptions(epochs=1, batch_size=16, learning_rate=1e-3, least_improvement=-1e9)
"""Whatever validation says of it, so that trained weights are compared."""
ABOVE_BIAS = preset("tiny")
PLAIN = preset("tiny").with_options(rating_base="none", history_ratings=False)


def with_second_reviews(table: ReviewTable) -> ReviewTable:
    """The table with every user's newest review in domain-1 made one of an item that the user rated in domain-0."""
    items = list(table.item)
    rated = dict(zip(table.user, table.item, strict=True)) | {
        table.user[row]: table.item[row] for row in table.rows_of_domains("domain-0").tolist()
    }
    newest = {table.user[row]: row for row in table.rows_of_domains("domain-1").tolist()}
    for user, row in newest.items():
        items[row] = rated[user]
    return replace(table, item=items)


TABLE = with_second_reviews(small_table(users=40))
SPLIT = random_split(TABLE, TABLE.rows_of_domains("domain-0"), seed=5)


def saying_something_else(rows: Rows) -> ReviewTable:
    """The table with other ratings and other texts, of as many tokens, at these rows.

    As many, since reviews of like length are encoded together, and beside other neighbours all but the last digits of
    a state are the same.
    """
    ratings, texts = TABLE.rating.copy(), list(TABLE.text)
    ratings[rows] = 6 - ratings[rows]
    for row in rows.tolist():
        texts[row] = " ".join(reversed(texts[row].split()))
    return replace(TABLE, rating=ratings, text=texts)


def trained(table: ReviewTable, directory: Path, config: ModelConfig, mode: Mode) -> dict[str, bytes]:
    """All that pre-training and fine-tuning leave of it."""
    before = PretrainOptions(corpus="both", loop=LAST_EPOCH_KEPT)
    start = pretrain(table, SPLIT, config, LEXICON, before, directory / "pretrained")
    options = FinetuneOptions(mode=mode, loop=LAST_EPOCH_KEPT)
    run, states = directory / "finetuned", directory / "states"
    finetune(table, SPLIT, config, options, run, pretrained=start, states=states)
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for stage in (start, run)
        for path in sorted(stage.rglob("*"))
        if path.is_file() and "tensorboard" not in path.parts  # its events have times
    }


def differing(one: dict[str, bytes], other: dict[str, bytes]) -> set[str]:
    assert sorted(one) == sorted(other)
    return {name for name in one if one[name] != other[name]}


@pytest.mark.parametrize(("config", "mode"), [(ABOVE_BIAS, "cached"), (PLAIN, "end-to-end")])
def test_no_byte_of_a_model_depends_on_what_is_held_out(config: ModelConfig, mode: Mode, tmp_path: Path) -> None:
    elsewhere = np.setdiff1d(np.flatnonzero(withheld(TABLE, SPLIT)), SPLIT.rows)
    assert len(elsewhere) > 10, "pairs of the target have second reviews in the other domain"
    unread = saying_something_else(np.concatenate([SPLIT.test, elsewhere]))
    model, other = (trained(table, tmp_path / str(table is unread), config, mode) for table in (TABLE, unread))
    assert not differing(model, other)


def test_validation_chooses_an_epoch_and_intervals_and_teaches_nothing(tmp_path: Path) -> None:
    """Without a bias beneath it, for the network's share in a rating decides which epoch improves on which."""
    watched = saying_something_else(SPLIT.validation)
    model, other = (trained(table, tmp_path / str(table is watched), PLAIN, "cached") for table in (TABLE, watched))
    assert differing(model, other) == {f"finetuned/{name}" for name in (RATING, STAGE_FILE)}
