"""The report of ``ubert bench accuracy``: text and tables as Markdown, and all of it as JSON."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ubert_model.running.atomic import write_text
from ubert_training.accuracy.plots import plot_models, plot_slices
from ubert_training.accuracy.summary import AccuracyReport, ModelErrors, Slice
from ubert_training.accuracy.variants import SHUFFLED, UBERT
from ubert_training.baselines.cornac_models import NOT_COMPARED
from ubert_training.evaluation.markdown import markdown_table
from ubert_training.evaluation.metrics import Estimate
from ubert_training.finetuning.interval_fit import COVERAGE
from ubert_training.running.digests import plain

REPORT = "accuracy"
COVERAGE_TOLERANCE, SLICE_TOLERANCE, LEAST_SLICE = 0.015, 0.04, 200


def write_report(report: AccuracyReport, directory: Path) -> list[Path]:
    """Write ``accuracy.json``, ``accuracy.md``, and the plots that there are results for."""
    paths = [directory / f"{REPORT}.json", directory / f"{REPORT}.md"]
    write_text(paths[0], json.dumps(_finite(plain(report)), indent=2, ensure_ascii=False) + "\n")
    write_text(paths[1], markdown(report))
    compared = [model for model in report.models if model.difference is not None]
    for name, plot, shown in (("models", plot_models, compared), ("slices", plot_slices, report.slices)):
        if shown:
            paths.append(directory / f"{REPORT}-{name}.png")
            plot(report, paths[-1])
    return paths


def markdown(report: AccuracyReport) -> str:
    """The whole report; its first paragraph states the conclusions."""
    parts = [
        " ".join(conclusions(report)),
        f"{_extent(report)} MSE in stars², ± the standard deviation over cells if there are several. Differences are "
        "U-BERT's MSE minus the other's on the same pairs by the same seeds, each pair's error averaged over these "
        "first, with the 95% interval of a bootstrap over pairs: below 0, U-BERT is better. Baselines are tuned on the "
        "validation part of each fold, quick ones also on folds of its training part; those with other domains learn "
        "from all that pre-training may read there, too.",
        _models_table(report),
    ]
    if report.bias_part is not None:
        parts.append(f"Above its own bias part alone, of the same runs, U-BERT differs by {report.bias_part.signed()}.")
    if report.slices:
        parts.append(f"By the number of reviews in the history, U-BERT against {report.best_baseline}:")
        parts.append(_slices_table(report.slices))
    if report.coverage is not None:
        parts.append(_coverage(report))
    if report.truth is not None:
        truth = report.truth
        parts.append(
            "The corpus is SYNTHETIC: a predictor that knows all that was planted reaches "
            f"{truth.best_with_text:.4f}, the best sum of biases {truth.best_with_biases:.4f}; 100% of the gain is the "
            "difference between the two. Models below 0% know even the biases less well: from reviews, they can only "
            "be estimated."
        )
    absent = [f"{model.name}: {model.failure}" for model in report.models if model.failure is not None]
    absent += [f"{name}: {reason}" for name, reason in NOT_COMPARED.items()]
    parts.append("Not compared:\n\n" + "\n".join(f"- {line}" for line in absent))
    return "\n\n".join(parts) + "\n"


def conclusions(report: AccuracyReport) -> Iterator[str]:
    """Plain sentences: does U-BERT beat the best baseline, how does shuffled text score, is anything missing?"""
    ubert = report.model(UBERT)
    if ubert is None or report.difference is None or report.relative is None:
        yield "Nothing can be said yet: U-BERT and a baseline have to be measured on the same folds first."
    else:
        verdict = {
            -1: f"U-BERT beats the best tuned baseline, {report.best_baseline}",
            0: f"U-BERT cannot be told from the best tuned baseline, {report.best_baseline}",
            1: f"U-BERT loses to the best tuned baseline, {report.best_baseline}",
        }[_sign(report.difference)]
        yield f"**{verdict}**: its MSE differs by {report.relative:+.2%}, {report.difference.signed()} stars²."
        yield _about_shuffled(report.shuffled)
    if report.truth is not None and ubert is not None and ubert.share_of_gain is not None:
        yield f"It gets {ubert.share_of_gain:.0%} of the gain that the planted text allows (SYNTHETIC corpus)."
    if report.codes > 1:
        yield (
            f"The cells of U-BERT and its variants come from {report.codes} versions of this program's code: remove "
            "cells/ to compute all with this one."
        )
    if report.failed:
        yield f"{report.failed} of {report.planned} cells failed; the reasons are at the end."
    if report.missing:
        yield f"{report.missing} of {report.planned} cells are missing; the same command continues with them."


def _about_shuffled(shuffled: Estimate | None) -> str:
    if shuffled is None:
        return f"Whether it reads the text is open: `{SHUFFLED}` was not measured."
    difference = f"its own MSE minus that: {shuffled.signed()}"
    return {
        -1: f"It does read the text: trained on shuffled reviews its MSE is higher ({difference}).",
        0: f"**Trained on shuffled reviews it scores the same** ({difference}): "
        "whatever it gains does not come from what the reviews say.",
        1: f"**Trained on shuffled reviews it scores better** ({difference}): what the reviews say costs it accuracy.",
    }[_sign(shuffled)]


def _sign(difference: Estimate) -> int:
    """−1 or 1 where the interval lies on one side of 0, else 0."""
    return -1 if difference.high < 0 else 1 if difference.low > 0 else 0


def _extent(report: AccuracyReport) -> str:
    seeds = ", ".join(map(str, report.seeds))
    if report.pretraining_seeds and list(report.pretraining_seeds) != list(report.seeds):
        seeds += f" (pre-training by {', '.join(map(str, report.pretraining_seeds))} only)"
    if report.split == "time":
        return f"One split by time (train on the past), seeds {seeds}."
    return f"{report.folds} folds, dealt out by seed {report.folds_seed}, every review tested once; seeds {seeds}."


def _models_table(report: AccuracyReport) -> str:
    header = ["model", "cells", "MSE", "MAE", "MSE of U-BERT − this"]
    rows = []
    for model in report.models:
        mse, mae = (f"{model.mse:.4f}", f"{model.mae:.4f}") if model.cells else ("–", "–")
        mse += f" ± {model.spread:.4f}" if model.cells > 1 else ""
        name = f"{model.name} (baseline)" if model.baseline else model.name
        row = [name, f"{model.cells}/{model.planned}", mse, mae, model.difference.signed() if model.difference else ""]
        rows.append([*row, _share(model)] if report.truth else row)
    return markdown_table([*header, "share of the text's gain"] if report.truth else header, rows)


def _share(model: ModelErrors) -> str:
    return "" if model.share_of_gain is None else f"{model.share_of_gain:.0%}"


def _slices_table(slices: Sequence[Slice]) -> str:
    rows = [
        [
            f"{entry.side}: {entry.reviews}",
            f"{entry.pairs:,}",
            f"{entry.ubert.value:.4f}",
            f"{entry.baseline.value:.4f}",
            entry.difference.signed(),
            f"{entry.coverage:.1%}",
        ]
        for entry in slices
    ]
    return markdown_table(
        ["history", "pairs", "U-BERT", "best baseline", "difference", f"in the {COVERAGE:.0%} interval"], rows
    )


def _coverage(report: AccuracyReport) -> str:
    assert report.coverage is not None
    kept = "within" if abs(report.coverage - COVERAGE) <= COVERAGE_TOLERANCE else "outside"
    held = f"The {COVERAGE:.0%} intervals hold {report.coverage:.1%} of the ratings"
    overall = f"{held}, {kept} {_promised(COVERAGE_TOLERANCE)}"
    slices = [(f"{entry.side} {entry.reviews}", entry.pairs, entry.coverage) for entry in report.slices]
    slices += [(f"predicted {entry.predicted}", entry.pairs, entry.coverage) for entry in report.coverage_by_prediction]
    large = [(name, coverage) for name, pairs, coverage in slices if pairs >= LEAST_SLICE]
    off = [(name, coverage) for name, coverage in large if abs(coverage - COVERAGE) > SLICE_TOLERANCE]
    promise = _promised(SLICE_TOLERANCE)
    if not large:
        return f"{overall}; no slice has the {LEAST_SLICE} pairs needed to judge it."
    if not off:
        return f"{overall}; each of the {len(large)} slices of {LEAST_SLICE} pairs or more is within {promise}."
    named = ", ".join(f"{name} ({coverage:.1%})" for name, coverage in off)
    return f"{overall}; of the {len(large)} slices of {LEAST_SLICE} pairs or more, outside {promise}: {named}."


def _promised(tolerance: float) -> str:
    return f"{100 * COVERAGE:g} ± {100 * tolerance:g}%"


def _finite(value: Any) -> Any:
    """JSON has neither NaN, which stands for what was not measured, nor infinity: both are null."""
    if isinstance(value, dict):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
