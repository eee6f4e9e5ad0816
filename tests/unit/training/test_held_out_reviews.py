"""Law 5 over whole runs: no byte that training writes depends on a held-out review."""

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
KEEP_LAST_EPOCH = LoopOptions(epochs=1, batch_size=16, learning_rate=1e-3, least_improvement=-1e9)
"""Keeps the trained weights whatever their validation loss, so that they are what is compared."""
ABOVE_BIAS = preset("tiny")
WITHOUT_BIAS = preset("tiny").with_options(rating_base="none", history_ratings=False)


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


def with_other_content(rows: Rows) -> ReviewTable:
    """The table with other ratings and other texts, of as many tokens, at these rows.

    The number of tokens is kept, because reviews of similar length are encoded in one batch, and other batches change
    the last digits of a state.
    """
    ratings, texts = TABLE.rating.copy(), list(TABLE.text)
    ratings[rows] = 6 - ratings[rows]
    for row in rows.tolist():
        texts[row] = " ".join(reversed(texts[row].split()))
    return replace(TABLE, rating=ratings, text=texts)


def trained(table: ReviewTable, directory: Path, config: ModelConfig, mode: Mode) -> dict[str, bytes]:
    """The files that pre-training and fine-tuning write, by path."""
    pretraining = PretrainOptions(corpus="both", loop=KEEP_LAST_EPOCH)
    pretrained = pretrain(table, SPLIT, config, LEXICON, pretraining, directory / "pretrained")
    finetuning = FinetuneOptions(mode=mode, loop=KEEP_LAST_EPOCH)
    run, states = directory / "finetuned", directory / "states"
    finetune(table, SPLIT, config, finetuning, run, pretrained=pretrained, states=states)
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for stage in (pretrained, run)
        for path in sorted(stage.rglob("*"))
        if path.is_file() and "tensorboard" not in path.parts  # its events hold times
    }


def differing(one: dict[str, bytes], other: dict[str, bytes]) -> set[str]:
    assert sorted(one) == sorted(other)
    return {name for name in one if one[name] != other[name]}


@pytest.mark.parametrize(("config", "mode"), [(ABOVE_BIAS, "cached"), (WITHOUT_BIAS, "end-to-end")])
def test_no_byte_of_a_model_depends_on_a_held_out_review(config: ModelConfig, mode: Mode, tmp_path: Path) -> None:
    elsewhere = np.setdiff1d(np.flatnonzero(withheld(TABLE, SPLIT)), SPLIT.rows)
    assert len(elsewhere) > 10, "pairs of the target have second reviews in the other domain"
    changed = with_other_content(np.concatenate([SPLIT.test, elsewhere]))
    model, other = (trained(table, tmp_path / str(table is changed), config, mode) for table in (TABLE, changed))
    assert not differing(model, other)


def test_validation_reviews_change_only_the_rating_parts_and_the_summary(tmp_path: Path) -> None:
    """Without a bias, because above one the blend weight, which validation fits, decides which epoch improves."""
    changed = with_other_content(SPLIT.validation)
    model, other = (
        trained(table, tmp_path / str(table is changed), WITHOUT_BIAS, "cached") for table in (TABLE, changed)
    )
    assert differing(model, other) == {f"finetuned/{name}" for name in (RATING, STAGE_FILE)}
