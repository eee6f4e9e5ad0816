"""What jobs share in a workspace: pre-trained models and encoder states."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from support.accuracy_bench import LEXICON, TABLE, TINY, VARIANT
from ubert_model.bundle import CODEBOOKS
from ubert_model.config import RatingScale
from ubert_training.accuracy.bench import ordered_cells
from ubert_training.accuracy.cells import CellStore
from ubert_training.accuracy.folds import Fold, make_folds
from ubert_training.accuracy.report import markdown
from ubert_training.accuracy.summary import summarise
from ubert_training.accuracy.variants import NO_TEXT, SHUFFLED, UBERT, MeasuredVariant, choose_contenders
from ubert_training.finetuning.finished_run import FinishedRun
from ubert_training.pretraining.corpus_rows import target_rows
from ubert_training.recipes.recipe import READ_BY_PRETRAINING, Recipe
from ubert_training.recipes.workspace import Job, Workspace
from ubert_training.states import state_bank
from ubert_training.states.tokens import TokenizedReviews


def record_encoding(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """Grows with every review that has tokens and is encoded into a bank: its row, and whether in bfloat16."""
    encoded: list[tuple[int, bool]] = []

    def recording(
        encoder: Any, tokens: TokenizedReviews, rows: NDArray[np.int64], *, bfloat16: bool = False
    ) -> list[NDArray[np.float32]]:
        encoded.extend((row, bfloat16) for row in rows.tolist() if tokens.lengths[row])
        return encode_batch(encoder, tokens, rows, bfloat16=bfloat16)

    encode_batch = state_bank.encode_batch
    monkeypatch.setattr(state_bank, "encode_batch", recording)
    return encoded


def test_encoder_states_are_shared_exactly_by_jobs_of_the_same_texts_and_encoder(
    workspace: Workspace, folds: list[Fold]
) -> None:
    plain = TINY.varied(pretrained=False)

    def states(recipe: Recipe, *, name: str = UBERT, fold: int = 0, seed: int = 0) -> Path:
        measured = MeasuredVariant(variant=VARIANT[name], recipe=recipe, workspace=workspace)
        return workspace.places(measured.job(folds[fold], seed)).states

    assert states(plain) == states(plain, fold=1, seed=1) == states(plain.varied(model={"match_pooling": "max"}))
    others = [
        states(plain),
        states(plain, name=NO_TEXT),
        *(states(plain, name=SHUFFLED, seed=seed) for seed in (0, 1)),
        states(plain, name="50% of the reviews"),
        *(states(plain.varied(model=changed)) for changed in ({"max_length": 8}, {"tokens_a_row": 2})),
        states(plain.varied(model={"encoder_layers": 1})),
        states(TINY),
    ]
    assert len(set(others)) == len(others)


def test_variants_share_pre_training_exactly_if_it_would_be_the_same(workspace: Workspace, folds: list[Fold]) -> None:
    def pretrained(name: str, *, seed: int = 0, **model: object) -> Path | None:
        variant = VARIANT[name]
        measured = MeasuredVariant(
            variant=replace(variant, model=model or variant.model), recipe=TINY, workspace=workspace
        )
        return workspace.places(measured.job(folds[0], seed)).pretrained

    assert pretrained(UBERT) == pretrained(UBERT, match_pooling="mean") == pretrained(UBERT, history_ratings=False)
    other: dict[str, Any] = {
        "backbone": "paper",
        "encoder_layers": 1,
        "pretrain_max_length": 9,
        "state_dim": 8,
        "dropout": 0.3,
        "id_embeddings": "none",
        "scale": RatingScale(lowest=0, highest=5),
    }
    assert other.keys() == set(READ_BY_PRETRAINING)
    for name, value in other.items():
        assert pretrained(UBERT, **{name: value}) != pretrained(UBERT), name
    assert pretrained("u-bert without pre-training") is None
    assert pretrained("no review text") is None
    places = [pretrained(name) for name, variant in VARIANT.items() if variant.pretrained]
    assert len(set(places)) == len(places)
    assert pretrained(UBERT, seed=1) != pretrained(UBERT)


def test_other_seeds_share_the_models_of_the_pretraining_seeds(workspace: Workspace, folds: list[Fold]) -> None:
    names = f"{UBERT},{SHUFFLED},u-bert without pre-training"
    cells = ordered_cells(folds[:1], [0, 1, 2, 3], choose_contenders(names, TINY, workspace, [0, 1]))
    for name in (UBERT, SHUFFLED):
        of_name = [(cell, cell.contender) for cell in cells if cell.contender.name == name]
        jobs = [
            contender.job(cell.fold, cell.seed) for cell, contender in of_name if isinstance(contender, MeasuredVariant)
        ]
        places = [workspace.places(job) for job in jobs]
        assert places[2:] == places[:2]
        assert places[0] != places[1]
        assert [job.recipe.finetuning.loop.seed for job in jobs] == [0, 1, 2, 3]
    assert len({cell.fingerprint for cell in cells}) == len(cells), "cells are not shared"
    report = markdown(summarise(cells, CellStore(workspace.directory / "cells"), "folds", None))
    assert "seeds 0, 1, 2, 3 (pre-training by 0, 1 only)" in report


def test_folds_share_pre_training_in_other_domains_only(workspace: Workspace, tmp_path: Path) -> None:
    folds = make_folds(TABLE, target_rows(TABLE, ["domain-0"]), "folds", 3, tmp_path)
    for corpus, expected in (("other-domains", 1), ("target", len(folds)), ("both", len(folds))):
        recipe = TINY.varied(pretraining={"corpus": corpus})
        measured = MeasuredVariant(variant=VARIANT[UBERT], recipe=recipe, workspace=workspace)
        pretrained, states = zip(*(workspace.places(measured.job(fold, 0)) for fold in folds), strict=True)
        assert (len(set(pretrained)), len(set(states))) == (expected, expected)


def test_states_that_are_only_measured_are_those_of_training_and_never_pass_for_fp32(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folds: list[Fold]
) -> None:
    for module in ("ubert_training.running.devices", "ubert_training.optimization.loop"):
        monkeypatch.setattr(f"{module}.has_native_bfloat16", lambda _: True)
    encoded = record_encoding(monkeypatch)
    recipe = TINY.shortened(pretrain_epochs=None, finetune_epochs=1).varied(pretrained=False)
    job = Job(table=TABLE, split=folds[0].split, recipe=recipe)
    workspace = Workspace(directory=tmp_path, lexicon=LEXICON, only_measured=True)
    MeasuredVariant(variant=VARIANT[UBERT], recipe=recipe, workspace=workspace).rate(folds[0], 0)
    assert {bfloat16 for _, bfloat16 in encoded} == {True}
    assert len(encoded) == len(set(encoded)), "the cell is rated from the states that its training has read"
    encoded.clear()
    kept = replace(workspace, only_measured=False)
    FinishedRun.open(TABLE, kept.run(job, "kept"), states=kept.places(job).states)
    assert {bfloat16 for _, bfloat16 in encoded} == {False}, "the states in bfloat16 passed for those in fp32"


def test_no_text_outside_training_is_encoded_with_an_encoder_that_no_other_split_shares(
    monkeypatch: pytest.MonkeyPatch, workspace: Workspace, folds: list[Fold]
) -> None:
    encoded = record_encoding(monkeypatch)
    split = folds[0].split
    with_text = {row for row, text in enumerate(TABLE.text) if text}
    assert with_text - set(split.train.tolist()), "the test part has no text to leave out"
    pretraining = TINY.shortened(pretrain_epochs=1, finetune_epochs=1)
    for recipe, rows in ((pretraining, split.train), (TINY.varied(pretrained=False), split.rows)):
        MeasuredVariant(variant=VARIANT[UBERT], recipe=recipe, workspace=workspace).rate(folds[0], 0)
        assert sorted(row for row, _ in encoded) == sorted(with_text & set(rows.tolist()))
        encoded.clear()


@pytest.mark.parametrize("only_measured", [False, True])
def test_a_model_that_is_only_measured_gets_no_codebooks(
    tmp_path: Path, folds: list[Fold], only_measured: bool
) -> None:
    recipe = TINY.shortened(pretrain_epochs=None, finetune_epochs=1).varied(pretrained=False)
    workspace = Workspace(directory=tmp_path, lexicon=LEXICON, only_measured=only_measured)
    run = workspace.run(Job(table=TABLE, split=folds[0].split, recipe=recipe), "a")
    assert (run / CODEBOOKS).exists() is not only_measured
