"""The summary: fair comparisons on the same pairs, slices, coverage."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from support.accuracy_bench import MEAN, MEASURED_MEAN, TABLE, Planted, compute_all, computed, report_of
from ubert_training.accuracy.bench import ordered_cells
from ubert_training.accuracy.cells import CellStore
from ubert_training.accuracy.folds import Fold
from ubert_training.accuracy.report import markdown, write_report
from ubert_training.accuracy.summary import PlantedTruth, summarise
from ubert_training.accuracy.variants import REST, UBERT, MeasuredBaseline
from ubert_training.evaluation.metrics import HISTORY_SLICES


def test_a_model_of_fewer_seeds_is_compared_with_u_bert_of_the_same_seeds(tmp_path: Path, folds: list[Fold]) -> None:
    ubert, ablation = Planted(name=UBERT, per_seed=0.1), Planted(name="ablation", round=REST)
    store = CellStore(tmp_path)
    cells = ordered_cells(folds, [0, 1], [MEASURED_MEAN, ubert, ablation], ablation_seeds=1)
    compute_all(cells, store)
    differences = {model.name: model.difference for model in summarise(cells, store, "folds", None).models}
    for name, expected in (("ablation", 0.0), (MEAN.name, 0.05)):
        difference = differences[name]
        assert difference is not None
        assert difference.value == pytest.approx(expected, abs=0.003)


def test_u_bert_is_compared_with_the_baseline_of_least_error(tmp_path: Path, folds: list[Fold]) -> None:
    def constant_baseline(value: float) -> MeasuredBaseline:
        prepare = lambda _, __: lambda settings, _: lambda rows: np.full(len(rows), settings["value"])  # noqa: E731
        always = replace(MEAN, name=f"always {value:g}", grid=({"value": value},), prepare=prepare)
        return MeasuredBaseline(baseline=always, round=0)

    report = report_of(tmp_path, folds, constant_baseline(1.0), constant_baseline(5.0), Planted(name=UBERT, above=-0.1))
    assert report.best_baseline == MEAN.name
    ranked = [(model.name, model.mse) for model in report.models]
    assert ranked == sorted(ranked, key=lambda model: model[1])
    assert ranked[0][0] == UBERT
    assert report.difference is not None
    assert report.relative == pytest.approx(report.difference.value / dict(ranked)[MEAN.name])
    assert f"its MSE differs by {report.difference.value / dict(ranked)[MEAN.name]:+.2%}, " in markdown(report)


def test_the_best_baseline_is_chosen_on_the_seeds_that_u_bert_has(tmp_path: Path, folds: list[Fold]) -> None:
    def baseline(name: str, off: Sequence[float]) -> MeasuredBaseline:
        """Off by ``off[seed]`` stars."""
        prepare = lambda _, __: lambda _, seed: lambda rows: np.add(TABLE.rating[rows], off[seed], dtype=np.float64)  # noqa: E731
        return MeasuredBaseline(baseline=replace(MEAN, name=name, seeded=True, prepare=prepare), round=0)

    ubert, store = Planted(name=UBERT), CellStore(tmp_path)
    cells = ordered_cells(folds, [0, 1], [ubert, baseline("better", [0.1, 0.9]), baseline("worse", [0.2, 0.2])])
    compute_all([cell for cell in cells if cell.contender is not ubert or cell.seed == 0], store)
    assert summarise(cells, store, "folds", None).best_baseline == "better"


def test_a_slice_reports_the_errors_of_its_own_pairs(tmp_path: Path, folds: list[Fold]) -> None:
    planted = Planted(name=UBERT, above=-0.1, coverage=0.5)
    cells, store = computed(tmp_path, folds, planted)
    report = summarise(cells, store, "folds", None)
    assert report.coverage == pytest.approx(0.5, abs=0.02)
    ubert: list[float] = []
    mean: list[float] = []
    covered: list[bool] = []
    counts: dict[str, list[int]] = {"user": [], "item": []}
    for fold in folds:
        of_seeds = [planted.rate(fold, seed) for seed in (0, 1)]
        ubert += np.mean([ratings.squared_errors for ratings in of_seeds], axis=0).tolist()
        mean += MEASURED_MEAN.rate(fold, 0).squared_errors.tolist()
        assert of_seeds[0].covered is not None
        covered += of_seeds[0].covered.tolist()
        for side, names in (("user", TABLE.user), ("item", TABLE.item)):
            known = [names[row] for row in fold.split.train.tolist()]
            counts[side] += [known.count(names[row]) for row in fold.split.test.tolist()]
    bounds = {name: (least, most) for name, least, most in HISTORY_SLICES}
    for entry in report.slices:
        least, most = bounds[entry.reviews]
        own = [n for n, count in enumerate(counts[entry.side]) if least <= count and (most is None or count <= most)]
        assert entry.pairs == len(own)
        of_ubert, of_mean = np.mean(np.array(ubert)[own]), np.mean(np.array(mean)[own])
        assert entry.ubert.value == pytest.approx(of_ubert)
        assert entry.baseline.value == pytest.approx(of_mean)
        assert entry.difference.value == pytest.approx(of_ubert - of_mean)
        assert entry.coverage == pytest.approx(np.mean(np.array(covered)[own]))
        row = f"| {entry.side}: {entry.reviews} | {len(own):,} | {of_ubert:.4f} | {of_mean:.4f} | "
        assert f"{row}{entry.difference.signed()} | {entry.coverage:.1%} |" in markdown(report)


def test_a_baseline_that_lacks_a_fold_of_u_bert_is_not_compared(tmp_path: Path, folds: list[Fold]) -> None:
    store = CellStore(tmp_path)
    cells = ordered_cells(folds, [0], [Planted(name=UBERT), MEASURED_MEAN])
    compute_all([cell for cell in cells if cell.contender is not MEASURED_MEAN or cell.fold is folds[0]], store)
    first_paragraph = markdown(summarise(cells, store, "folds", None)).split("\n")[0]
    assert "U-BERT and a baseline have to be measured on the same folds first" in first_paragraph


def test_u_bert_is_compared_with_its_own_bias_part(tmp_path: Path, folds: list[Fold]) -> None:
    report = report_of(tmp_path, folds, Planted(name=UBERT))
    assert report.bias_part is not None
    assert report.bias_part.value == pytest.approx(-1.0, abs=0.01)


def test_coverage_is_judged_by_prediction_too(tmp_path: Path, folds: list[Fold]) -> None:
    planted = Planted(name=UBERT, coverage=0.5)
    cells, store = computed(tmp_path, folds, planted)
    report = summarise(cells, store, "folds", None)
    of_seeds = [[planted.rate(fold, seed) for seed in (0, 1)] for fold in folds]
    predicted = np.concatenate([(first.predicted + second.predicted) / 2 for first, second in of_seeds])
    covered = np.concatenate([first.covered for first, _ in of_seeds if first.covered is not None])
    tenths = report.coverage_by_prediction
    assert len(tenths) == 10
    assert sum(entry.pairs for entry in tenths) == len(TABLE)
    lowest = predicted < np.quantile(predicted, 0.1)
    assert tenths[0].pairs == lowest.sum()
    assert tenths[0].coverage == pytest.approx(covered[lowest].mean())
    large = replace(tenths[0], pairs=200, coverage=0.5)
    assert f"predicted {large.predicted} (50.0%)" in markdown(replace(report, coverage_by_prediction=[large]))


def test_the_report_has_mean_absolute_errors(tmp_path: Path, folds: list[Fold]) -> None:
    report = report_of(tmp_path, folds, Planted(name=UBERT))
    mean = report.model(MEAN.name)
    assert mean is not None
    expected = [np.abs(fold.truth - TABLE.rating[fold.split.train].mean()).mean() for fold in folds]
    assert mean.mae == pytest.approx(np.mean(expected), rel=1e-6)
    assert f" | {mean.mae:.4f} | " in markdown(report)


def test_the_spread_over_cells_is_that_of_a_sample_and_needs_two_cells(tmp_path: Path, folds: list[Fold]) -> None:
    report = report_of(tmp_path, folds[:1], Planted(name=UBERT, per_seed=0.1))
    ubert, mean = report.model(UBERT), report.model(MEAN.name)
    assert ubert is not None
    assert mean is not None
    assert ubert.spread == pytest.approx(0.1 / np.sqrt(2), abs=0.01)
    assert f"| {ubert.mse:.4f} ± {ubert.spread:.4f} |" in markdown(report)
    assert f"| 1/1 | {mean.mse:.4f} | {mean.mae:.4f} |" in markdown(report)


def test_the_slices_of_a_side_hold_every_pair_once(tmp_path: Path, folds: list[Fold]) -> None:
    report = report_of(tmp_path, folds, Planted(name=UBERT))
    for side in ("user", "item"):
        assert sum(entry.pairs for entry in report.slices if entry.side == side) == len(TABLE)


def test_the_share_of_the_gain_is_1_at_the_floor_and_0_at_the_best_biases(tmp_path: Path, folds: list[Fold]) -> None:
    truth = PlantedTruth(best_with_text=0.4, best_with_biases=0.6)
    assert [truth.share_of_gain(mse) for mse in (0.4, 0.6, 0.7)] == pytest.approx([1.0, 0.0, -0.5])
    report = summarise(*computed(tmp_path, folds, Planted(name=UBERT)), "folds", truth)
    ubert = report.model(UBERT)
    assert ubert is not None
    assert f"It gets {truth.share_of_gain(ubert.mse):.0%} of the gain that the planted text allows" in markdown(report)
    assert f"| {ubert.mse:.4f} ± {ubert.spread:.4f} | " in markdown(report)
    written = write_report(report, tmp_path)
    assert json.loads(written[0].read_text(encoding="utf-8"))["truth"]["best_with_text"] == 0.4
    assert all(path.stat().st_size > 0 for path in written)
