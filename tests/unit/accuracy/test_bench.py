"""Computing cells: in order, once, by several processes, until the time is up."""

import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from support.accuracy_bench import MEASURED_MEAN, TINY, VARIANT, Planted, compute_all, computed, report_of
from ubert_model.errors import ConfigError
from ubert_training.accuracy import bench
from ubert_training.accuracy.bench import at_intervals, compute_cells, ordered_cells
from ubert_training.accuracy.cells import CELL, Cell, CellStore, Contender
from ubert_training.accuracy.folds import Fold
from ubert_training.accuracy.report import markdown, write_report
from ubert_training.accuracy.summary import summarise
from ubert_training.accuracy.variants import REST, SLOW, UBERT, MeasuredVariant
from ubert_training.recipes.workspace import Workspace


def test_cells_are_ordered_by_round_seed_and_fold(folds: list[Fold]) -> None:
    contenders: list[Contender] = [
        Planted(name="late", round=2),
        Planted(name=UBERT),
        Planted(name="unseeded", seeded=False),
    ]
    cells = ordered_cells(folds[:2], [0, 1], contenders)
    assert [(cell.contender.name, cell.seed, cell.fold.number) for cell in cells] == [
        (UBERT, 0, 0),
        ("unseeded", 0, 0),
        (UBERT, 0, 1),
        ("unseeded", 0, 1),
        (UBERT, 1, 0),
        (UBERT, 1, 1),
        *[("late", seed, fold) for seed in (0, 1) for fold in (0, 1)],
    ]


def test_ablation_seeds_limits_the_seeds_of_slow_baselines_and_ablations(folds: list[Fold]) -> None:
    contenders: list[Contender] = [
        Planted(name=UBERT),
        Planted(name="slow", round=SLOW),
        Planted(name="rest", round=REST),
    ]
    cells = ordered_cells(folds[:1], [3, 4, 5], contenders, ablation_seeds=2)
    assert [(cell.contender.name, cell.seed) for cell in cells] == [
        *[(UBERT, seed) for seed in (3, 4, 5)],
        *[(name, seed) for name in ("slow", "rest") for seed in (3, 4)],
    ]


def test_a_finished_cell_is_never_computed_again(tmp_path: Path, folds: list[Fold]) -> None:
    cells, store = computed(tmp_path, folds, Planted(name=UBERT))
    assert compute_all(cells, CellStore(store.directory)) == []
    other = replace(cells[0], seed=7, contender=Planted(name=UBERT))
    assert compute_all([*cells, other], store) == [other]


def test_a_cell_killed_while_it_was_written_is_computed_again(tmp_path: Path, folds: list[Fold]) -> None:
    cells, store = computed(tmp_path, folds, Planted(name=UBERT))
    (store.directory / cells[1].fingerprint / CELL).unlink()  # written last
    assert compute_all(cells, store) == [cells[1]]


@pytest.mark.parametrize("computed_there", [True, False])
def test_a_cell_that_another_process_claims_is_skipped_and_looked_at_again(
    tmp_path: Path, folds: list[Fold], monkeypatch: pytest.MonkeyPatch, computed_there: bool
) -> None:
    """It is computed here if the other process released it without a result."""
    monkeypatch.setattr(bench, "POLL_SECONDS", 0.0)
    store, others_store = CellStore(tmp_path), CellStore(tmp_path)
    cells = ordered_cells(folds, [0], [Planted(name=UBERT)])
    claimed, *free = cells
    begun: list[Cell] = []
    with ExitStack() as claim:
        assert claim.enter_context(others_store.claim(claimed.fingerprint))

        def ended(cell: Cell) -> None:
            if cell is free[-1]:
                if computed_there:
                    others_store.save(claimed, claimed.contender.rate(claimed.fold, claimed.seed), seconds=0.0)
                claim.close()

        compute_cells(cells, store, until=float("inf"), began=begun.append, ended=ended)
    assert begun == (free if computed_there else [*free, claimed])


def test_no_cell_begins_after_the_time_limit_and_the_report_counts_what_is_missing(
    tmp_path: Path, folds: list[Fold]
) -> None:
    store = CellStore(tmp_path)
    cells = ordered_cells(folds, [0], [Planted(name=UBERT)])
    compute_cells(cells, store, until=0.0, began=lambda _: pytest.fail("begun"), ended=lambda _: None)
    report = summarise(cells, store, "folds", None)
    (path, *_) = write_report(report, tmp_path)
    json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert (report.missing, report.planned) == (3, 3)
    assert "3 of 3 cells are missing" in markdown(report)


def test_a_failed_baseline_is_reported_with_its_error_and_tried_again(tmp_path: Path, folds: list[Fold]) -> None:
    report = report_of(tmp_path, folds, Planted(name=UBERT), Planted(name="absent", fails=True))
    assert (report.failed, report.missing) == (6, 0)
    assert "- absent: the library is missing" in markdown(report)
    again = report_of(tmp_path, folds, Planted(name=UBERT), Planted(name="absent"))
    assert (again.failed, again.missing) == (0, 0)


def test_a_model_whose_training_diverges_is_reported_and_the_bench_goes_on(
    workspace: Workspace, folds: list[Fold]
) -> None:
    recipe = TINY.varied(pretrained=False, learning_rate=1e26).shortened(pretrain_epochs=None, finetune_epochs=1)
    diverging = MeasuredVariant(variant=VARIANT[UBERT], recipe=recipe, workspace=workspace)
    cells = ordered_cells(folds[:1], [0], [diverging, MEASURED_MEAN])
    store = CellStore(workspace.directory / "cells")
    compute_all(cells, store)
    assert "training diverged in epoch 1" in (store.failure(cells[0]) or "")
    assert store.has(cells[1])
    assert "training diverged" in markdown(summarise(cells, store, "folds", None))


def test_a_model_that_cannot_be_trained_ends_the_bench_before_any_cell(workspace: Workspace, folds: list[Fold]) -> None:
    too_deep = MeasuredVariant(
        variant=VARIANT[UBERT], recipe=TINY.varied(model={"encoder_layers": 9}), workspace=workspace
    )
    store = CellStore(workspace.directory / "cells")
    with pytest.raises(ConfigError, match="encoder_layers = 9: the backbone has 2 layers"):
        compute_all(ordered_cells(folds, [0], [MEASURED_MEAN, too_deep]), store)
    assert not store.directory.exists()


def test_a_report_is_written_at_intervals_only(monkeypatch: pytest.MonkeyPatch, folds: list[Fold]) -> None:
    now, written = 100.0, list[float]()
    monkeypatch.setattr("time.monotonic", lambda: now)
    report = at_intervals(60, lambda _: written.append(now))
    cell = Cell(fold=folds[0], seed=0, contender=MEASURED_MEAN)
    for later in (30.0, 30.0, 59.0, 1.0, 80.0):
        now += later
        report(cell)
    assert written == [160.0, 220.0, 300.0]
