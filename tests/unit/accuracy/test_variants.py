"""The contenders: which there are, and what they train on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from support.accuracy_bench import LEXICON, MEAN, ROWS, TABLE, TINY, VARIANT
from ubert_training.accuracy.folds import Fold, make_folds
from ubert_training.accuracy.variants import (
    NO_TEXT,
    SHUFFLED,
    UBERT,
    VARIANTS,
    MeasuredBaseline,
    MeasuredVariant,
    choose_contenders,
)
from ubert_training.baselines.surprise_models import surprise_baselines
from ubert_training.recipes.workspace import Job, Workspace
from ubert_training.reviews.table import ReviewTable


@pytest.mark.parametrize(
    ("corpus", "domains", "expected"),
    [
        ("both", True, True),
        ("other-domains", True, True),
        ("target", True, False),
        (None, True, False),
        ("both", False, False),
    ],
)
def test_baselines_with_other_domains_are_added_if_u_bert_reads_other_domains(
    corpus: str | None, workspace: Workspace, *, domains: bool, expected: bool
) -> None:
    recipe = TINY.varied(pretraining={"corpus": corpus}, pretrained=corpus is not None)
    contenders = choose_contenders("default", recipe, workspace, other_domains=domains)
    names = {contender.name for contender in contenders if isinstance(contender, MeasuredBaseline)}
    fast = [*(baseline.name for baseline in surprise_baselines()), "Bayesian FM", "PMF", "biased MF"]
    with_other_domains = {f"{name} with other domains" for name in fast}
    assert {name for name in names if "with other domains" in name} == (with_other_domains if expected else set())


def test_variants_that_change_nothing_of_the_recipe_are_left_out(workspace: Workspace) -> None:
    assert {variant.name for variant in VARIANTS} <= {c.name for c in choose_contenders("all", TINY, workspace)}
    names = {c.name for c in choose_contenders("all", TINY.varied(pretrained=False), workspace)}
    assert {UBERT, SHUFFLED, "paper options", "25% of the reviews"} <= names
    assert not {"u-bert without pre-training", "without task 1", "25% of the pre-training reviews"} & names


def test_a_variant_that_is_named_twice_is_measured_once(workspace: Workspace) -> None:
    chosen = choose_contenders(f"{UBERT},{MEAN.name}, {UBERT}", TINY, workspace)
    assert [contender.name for contender in chosen] == [UBERT, MEAN.name]


def test_the_variant_without_text_reads_none_of_the_test_part_either(tmp_path: Path, folds: list[Fold]) -> None:
    recipe = TINY.shortened(pretrain_epochs=None, finetune_epochs=1).varied(pretrained=False)
    rewritten = replace(TABLE, text=[" ".join(reversed(text.split())) or "new" for text in TABLE.text])

    def squared_errors(variant: str, table: ReviewTable, name: str) -> NDArray[np.float64]:
        workspace = Workspace(directory=tmp_path / name, lexicon=LEXICON, only_measured=True)
        measured = MeasuredVariant(variant=VARIANT[variant], recipe=recipe, workspace=workspace)
        return measured.rate(replace(folds[0], table=table), 0).squared_errors

    without = [squared_errors(NO_TEXT, table, f"without-{number}") for number, table in enumerate((TABLE, rewritten))]
    np.testing.assert_array_equal(without[0], without[1])
    ubert = [squared_errors(UBERT, table, f"with-{number}") for number, table in enumerate((TABLE, rewritten))]
    assert (ubert[0] != ubert[1]).any()


def test_the_names_of_runs_differ_between_folds_of_different_splits(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise of two benches in one workspace, one would find the other's run at work."""
    names: list[str] = []

    def record_name(_: Workspace, __: Job, name: str) -> Path:
        names.append(name)
        raise KeyboardInterrupt

    monkeypatch.setattr(Workspace, "run", record_name)
    measured = MeasuredVariant(variant=VARIANT[UBERT], recipe=TINY, workspace=workspace)
    for fold in (make_folds(TABLE, ROWS, by, 3, tmp_path)[0] for by in ("folds", "time")):
        with pytest.raises(KeyboardInterrupt):
            measured.rate(fold, 0)
    assert len(set(names)) == 2
