"""Distorted reviews: what changes, and what stays."""

from pathlib import Path

import numpy as np

from support.accuracy_bench import TABLE
from ubert_training.accuracy.distortions import ONE_WORD, Distortion, distorted
from ubert_training.accuracy.folds import Fold, make_folds
from ubert_training.pretraining.corpus_rows import target_rows


def test_shuffling_moves_texts_within_a_domain_and_no_rating(folds: list[Fold]) -> None:
    table, split = distorted(TABLE, folds[0].split, Distortion(texts="shuffled"), seed=0)
    assert split is folds[0].split
    np.testing.assert_array_equal(table.rating, TABLE.rating)
    for domain in TABLE.domains:
        rows = TABLE.rows_of_domains(domain).tolist()
        assert sorted(table.text[row] for row in rows) == sorted(TABLE.text[row] for row in rows)
    assert np.mean([a == b for a, b in zip(table.text, TABLE.text, strict=True)]) < 0.2


def test_without_text_every_review_is_the_same_word(folds: list[Fold]) -> None:
    table, _ = distorted(TABLE, folds[0].split, Distortion(texts="one word"), seed=0)
    assert set(table.text) == {ONE_WORD}


def test_a_share_of_the_reviews_keeps_all_evaluated_pairs(tmp_path: Path, folds: list[Fold]) -> None:
    split = folds[0].split
    table, smaller = distorted(TABLE, split, Distortion(share=0.5), seed=0)
    for part in ("validation", "test"):
        before = [TABLE.review_id[row] for row in getattr(split, part).tolist()]
        assert [table.review_id[row] for row in getattr(smaller, part).tolist()] == before
    kept = {table.review_id[row] for row in smaller.train.tolist()}
    assert kept < {TABLE.review_id[row] for row in split.train.tolist()}
    assert len(kept) == round(0.5 * len(split.train))
    target = make_folds(TABLE, target_rows(TABLE, ["domain-0"]), "folds", 3, tmp_path)[0].split
    table, _ = distorted(TABLE, target, Distortion(share=0.5), seed=0)
    others = len(TABLE.rows_of_domains("domain-1"))
    assert len(table.rows_of_domains("domain-1")) == round(0.5 * others), "pre-training reads the same share"
