"""Cells: stored under the digest of all their inputs, whole or not at all."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from support.accuracy_bench import BIAS, MEASURED_MEAN, TABLE, TINY, VARIANT, compute_all
from ubert_model.running.atomic import write_text
from ubert_training.accuracy.bench import ordered_cells
from ubert_training.accuracy.cells import Cell, CellStore
from ubert_training.accuracy.folds import Fold
from ubert_training.accuracy.variants import SHUFFLED, UBERT, MeasuredBaseline, MeasuredVariant
from ubert_training.errors import BaselineError
from ubert_training.pretraining.lexicon import Lexicon
from ubert_training.recipes.workspace import Workspace


def test_every_input_of_a_cell_changes_its_fingerprint(workspace: Workspace, folds: list[Fold]) -> None:
    other_words = replace(workspace, lexicon=Lexicon(words=frozenset({"bad"}), source="the test"))
    ubert = MeasuredVariant(variant=VARIANT[UBERT], recipe=TINY, workspace=workspace)
    other_domains = replace(folds[0], table=replace(TABLE, domain=["one"] * len(TABLE)))
    other_split = replace(folds[0], split=replace(folds[0].split, train=folds[0].split.train[1:]))
    bias = MeasuredBaseline(baseline=BIAS, round=0)
    cells = [
        *(
            Cell(fold=fold, seed=0, contender=contender)
            for fold in (*folds[:2], other_domains, other_split)
            for contender in (ubert, bias)
        ),
        Cell(fold=folds[0], seed=1, contender=ubert),
        *(
            Cell(fold=folds[0], seed=0, contender=contender)
            for contender in (
                replace(ubert, variant=VARIANT[SHUFFLED]),
                replace(ubert, recipe=TINY.varied(learning_rate=1.0)),
                replace(ubert, workspace=other_words),
                replace(bias, baseline=replace(BIAS, version=lambda: "another")),
                replace(bias, baseline=replace(BIAS, grid=BIAS.grid[1:])),
            )
        ),
    ]
    assert len({cell.fingerprint for cell in cells}) == len(cells)


def test_the_fingerprint_of_a_cell_leaves_out_inputs_that_it_does_not_read(
    workspace: Workspace, folds: list[Fold]
) -> None:
    """The seed, if it is not seeded; the opinion words, without pre-training."""
    other_words = replace(workspace, lexicon=Lexicon(words=frozenset({"bad"}), source="the test"))
    variant = MeasuredVariant(variant=VARIANT["u-bert without pre-training"], recipe=TINY, workspace=workspace)
    assert Cell(fold=folds[0], seed=0, contender=MeasuredBaseline(baseline=BIAS, round=0)).inputs["seed"] is None
    cells = [
        Cell(fold=folds[0], seed=0, contender=replace(variant, workspace=place)) for place in (workspace, other_words)
    ]
    assert cells[0].fingerprint == cells[1].fingerprint


def test_a_cell_whose_process_is_killed_as_soon_as_it_is_complete_has_not_failed(
    folds: list[Fold], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cell,) = ordered_cells(folds[:1], [0], [MEASURED_MEAN])
    store = CellStore(tmp_path)

    def killed_after(path: Path, text: str) -> None:
        write_text(path, text)
        raise KeyboardInterrupt

    store.note_failure(cell, BaselineError("an earlier attempt"))
    monkeypatch.setattr("ubert_training.accuracy.cells.write_text", killed_after)
    with pytest.raises(KeyboardInterrupt):
        compute_all([cell], store)
    assert store.has(cell)
    assert store.failure(cell) is None


def test_a_cell_keeps_its_ratings_in_the_order_of_the_test_pairs(workspace: Workspace, folds: list[Fold]) -> None:
    recipe = TINY.varied(pretrained=False).shortened(pretrain_epochs=None, finetune_epochs=1)
    ubert = MeasuredVariant(variant=VARIANT[UBERT], recipe=recipe, workspace=workspace)
    cells, store = ordered_cells(folds[:1], [0], [ubert, MEASURED_MEAN]), CellStore(workspace.directory / "cells")
    compute_all(cells, store)
    for cell in cells:
        ratings = store.load(cell)
        assert ratings is not None
        assert ratings.predicted is not None
        np.testing.assert_array_equal(np.square(ratings.predicted - cell.fold.truth), ratings.squared_errors)
