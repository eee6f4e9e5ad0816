"""The report: its conclusions in words, and its tables."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from support.accuracy_bench import MEASURED_MEAN, ROWS, TABLE, Planted, report_of
from ubert_training.accuracy.bench import ordered_cells
from ubert_training.accuracy.cells import CellRatings, CellStore
from ubert_training.accuracy.folds import Fold, make_folds
from ubert_training.accuracy.report import markdown, write_report
from ubert_training.accuracy.summary import summarise
from ubert_training.accuracy.variants import SHUFFLED, UBERT


@pytest.mark.parametrize(
    ("above", "verdict"), [(-0.1, "U-BERT beats"), (0.0, "U-BERT cannot be told from"), (0.1, "U-BERT loses to")]
)
def test_the_first_paragraph_says_whether_u_bert_beats_the_best_baseline(
    tmp_path: Path, folds: list[Fold], above: float, verdict: str
) -> None:
    report = report_of(tmp_path, folds, Planted(name=UBERT, above=above))
    assert report.best_baseline == "mean"
    assert report.difference is not None
    assert report.difference.value == pytest.approx(above, abs=0.003)
    assert verdict in markdown(report).split("\n")[0]


@pytest.mark.parametrize(
    ("above", "verdict"), [(0.1, "It does read"), (0.0, "it scores the same"), (-0.1, "it scores better")]
)
def test_the_first_paragraph_says_whether_shuffled_reviews_score_the_same(
    tmp_path: Path, folds: list[Fold], above: float, verdict: str
) -> None:
    report = report_of(tmp_path, folds, Planted(name=UBERT), Planted(name=SHUFFLED, above=above))
    first_paragraph = markdown(report).split("\n")[0]
    assert verdict in first_paragraph
    assert report.shuffled is not None
    assert f"(its own MSE minus that: {report.shuffled.signed()})" in first_paragraph


@pytest.mark.parametrize(("error", "relative"), [(0.0, "+0.00%"), (0.5, "+inf%")])
def test_a_best_baseline_without_any_error_is_reported_like_others(
    error: float, relative: str, tmp_path: Path, folds: list[Fold]
) -> None:
    """As if all ratings were the same."""
    store, cells = CellStore(tmp_path / "cells"), ordered_cells(folds, [0], [Planted(name=UBERT), MEASURED_MEAN])
    for cell in cells:
        errors = np.full(len(cell.fold.truth), error if cell.contender.name == UBERT else 0.0)
        predicted = cell.fold.truth + np.sqrt(errors)
        ratings = CellRatings(
            squared_errors=errors, predicted=predicted, covered=errors < 1, bias_squared_errors=errors
        )
        store.save(cell, ratings, seconds=0)
    report = summarise(cells, store, "folds", None)
    assert f"its MSE differs by {relative}" in markdown(report)
    path, *_ = write_report(report, tmp_path)
    assert "Infinity" not in path.read_text(encoding="utf-8")


def test_the_report_says_if_cells_come_from_several_versions_of_the_program(tmp_path: Path, folds: list[Fold]) -> None:
    one_version = report_of(tmp_path / "one", folds, Planted(name=UBERT))
    assert "versions of this program" not in markdown(one_version)
    for name in (UBERT, SHUFFLED):
        contenders = (Planted(name=each, code_per_seed=each == name) for each in (UBERT, SHUFFLED))
        two_versions = report_of(tmp_path / name, folds, *contenders)
        assert "come from 2 versions of this program's code" in markdown(two_versions)


def test_the_report_names_the_seed_that_dealt_out_the_folds(tmp_path: Path) -> None:
    folds = make_folds(TABLE, ROWS, "folds", 3, tmp_path, seed=7)
    report = report_of(tmp_path, folds, Planted(name=UBERT))
    assert "3 folds, dealt out by seed 7, every review tested once; seeds 0, 1." in markdown(report)
    path, *_ = write_report(report, tmp_path)
    assert json.loads(path.read_text(encoding="utf-8"))["folds_seed"] == 7
    by_time = report_of(tmp_path, make_folds(TABLE, ROWS, "time", 1, tmp_path), Planted(name=UBERT))
    assert by_time.folds_seed is None


def test_coverage_is_judged_only_in_slices_that_are_large_enough(tmp_path: Path, folds: list[Fold]) -> None:
    report = report_of(tmp_path, folds, Planted(name=UBERT))
    assert report.coverage == 1.0
    for coverage, judgement in ((1.0, "outside"), (0.91, "within"), (0.89, "within"), (0.88, "outside")):
        sentence = f"hold {coverage:.1%} of the ratings, {judgement} 90 ± 1.5%"
        assert sentence in markdown(replace(report, coverage=coverage))
    report = replace(report, coverage_by_prediction=[])
    sized = {pairs: [replace(entry, pairs=pairs) for entry in report.slices[:1]] for pairs in (199, 200)}
    assert "no slice has the 200 pairs" in markdown(replace(report, slices=sized[199]))
    assert "outside 90 ± 4%: user" in markdown(replace(report, slices=sized[200]))
    for coverage in (0.87, 0.93):
        within = [replace(entry, coverage=coverage) for entry in sized[200]]
        assert "each of the 1 slices of 200 pairs or more is within 90 ± 4%" in markdown(replace(report, slices=within))
    low = [replace(entry, coverage=0.85) for entry in sized[200]]
    assert f"outside 90 ± 4%: user {low[0].reviews} (85.0%)" in markdown(replace(report, slices=low))
