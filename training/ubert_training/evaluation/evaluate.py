"""Evaluation: the test part, read once, against tuned baselines on the same split."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from ubert_model.errors import InputError
from ubert_model.running.atomic import write_text
from ubert_training.baselines.surprise_models import surprise_baselines
from ubert_training.baselines.tuning import BaselineRatings, tuned, with_other_domains
from ubert_training.evaluation.metrics import (
    FEW_PAIRS,
    Errors,
    Estimate,
    Scores,
    history_slices,
    paired_differences,
    prediction_slices,
    scores,
)
from ubert_training.evaluation.rated_pairs import RatedPairs
from ubert_training.finetuning.finetune import KIND
from ubert_training.finetuning.finished_run import FinishedRun
from ubert_training.reviews.table import ReviewTable
from ubert_training.running.devices import DeviceChoice
from ubert_training.running.digests import plain
from ubert_training.running.progress import progress_bar
from ubert_training.running.stage import finished_stage
from ubert_training.splits import Split

MODEL_NAME = "U-BERT"
BIAS_NAME = "U-BERT's bias part"
WITHOUT_TEXT = "bias part, no text"
EVALUATION = "evaluation.json"
PREDICTIONS = "predictions.jsonl"


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Share of the test ratings that lie in their intervals; ``promised`` is the share that these were made for."""

    promised: float
    overall: float
    by_user_history: Mapping[str, float]
    by_item_history: Mapping[str, float]
    by_prediction: Mapping[str, float]
    width: float
    """Mean width of the intervals, in stars."""

    @classmethod
    def of(cls, rated: RatedPairs) -> "Coverage":
        covered = rated.covered

        def sliced(slices: Mapping[str, NDArray[np.int64]]) -> dict[str, float]:
            return {name: float(covered[index].mean()) for name, index in slices.items()}

        return cls(
            promised=rated.coverage,
            overall=float(covered.mean()),
            by_user_history=sliced(history_slices(rated.histories.user_count)),
            by_item_history=sliced(history_slices(rated.histories.item_count)),
            by_prediction=sliced(prediction_slices(rated.predicted)),
            width=float((rated.high - rated.low).mean()),
        )


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores of the model and of every baseline, by name, with slices and paired differences to each baseline.

    ``U-BERT's bias part`` is the bias model beneath the network: ratings, and what an item's texts say beyond them.
    ``bias part, no text`` is that model fitted to ratings alone: the difference is what texts do there.
    ``run`` is the fingerprint of the evaluated ``finetune`` stage.
    """

    run: str
    scores: Mapping[str, Scores]
    settings: Mapping[str, Mapping[str, Any]]
    by_user_history: Mapping[str, Mapping[str, Scores]]
    by_item_history: Mapping[str, Mapping[str, Scores]]
    differences: Mapping[str, Estimate]
    coverage: Coverage

    @property
    def best_baseline(self) -> str:
        """The baseline with the least MSE."""
        return min(self.settings, key=lambda name: self.scores[name].mse.value)


def evaluate(table: ReviewTable, directory: Path, *, states: Path, device: DeviceChoice = "auto") -> Evaluation:
    """Score a finished ``finetune`` stage, and write ``evaluation.json`` and the predictions into its directory.

    Raises ``InputError`` for a run that is unfinished, cannot be written into, or is replaced meanwhile.
    """
    stage = finished_stage(directory, KIND)
    _require_writable(directory)
    run = FinishedRun.open(table, directory, states=states, device=device)
    rated, without_text = RatedPairs.of(run, "test"), run.ratings_without_text(run.split.test)
    seed = int(stage["inputs"]["options"]["loop"]["seed"])
    baselines = _tuned_baselines(table, run.split, seed, other_domains=stage["summary"]["reviews_elsewhere"] > 0)
    errors = {
        MODEL_NAME: rated.predicted - rated.truth,
        BIAS_NAME: rated.bias - rated.truth,
        WITHOUT_TEXT: without_text - rated.truth,
        **{baseline.name: baseline.ratings - rated.truth for baseline in baselines},
    }
    evaluation = Evaluation(
        run=stage["fingerprint"],
        scores=scores(errors),
        settings={baseline.name: baseline.settings for baseline in baselines},
        by_user_history=_sliced(errors, history_slices(rated.histories.user_count)),
        by_item_history=_sliced(errors, history_slices(rated.histories.item_count)),
        differences=paired_differences(
            errors[MODEL_NAME], {name: values for name, values in errors.items() if name != MODEL_NAME}
        ),
        coverage=Coverage.of(rated),
    )
    if finished_stage(directory, KIND)["fingerprint"] != evaluation.run:  # tuning took its time
        raise InputError(f"{directory} holds another run than when its evaluation began; run `ubert evaluate` again")
    _write_predictions(directory / PREDICTIONS, table, rated)  # first, so that no newer evaluation lies beside it
    write_text(directory / EVALUATION, json.dumps(plain(evaluation), indent=2, ensure_ascii=False) + "\n")
    return evaluation


def evaluation_table(evaluation: Evaluation) -> Table:
    """The scores as a table for the terminal, best first."""
    coverage = evaluation.coverage
    table = Table(
        title="Test part; differences with 95% bootstrap intervals",
        caption=f"{coverage.promised:.0%} intervals hold {coverage.overall:.1%} of the test ratings and are "
        f"{coverage.width:.2f} stars wide",
    )
    for column in ("model", "MSE", "RMSE", "MAE", f"MSE of {MODEL_NAME} − this"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for name, scored in sorted(evaluation.scores.items(), key=lambda entry: entry[1].mse.value):
        difference = evaluation.differences.get(name)
        table.add_row(
            name,
            f"{scored.mse.value:.4f}",
            f"{scored.rmse.value:.4f}",
            f"{scored.mae.value:.4f}",
            "" if difference is None else difference.signed(),
            style="bold" if name == MODEL_NAME else None,
        )
    return table


def history_table(evaluation: Evaluation, side: str, slices: Mapping[str, Mapping[str, Scores]]) -> Table:
    """MSE by length of the user's or the item's history (``side``), for the model and the best baseline."""
    compared = (MODEL_NAME, evaluation.best_baseline)
    few = any(scored[MODEL_NAME].pairs < FEW_PAIRS for scored in slices.values())
    table = Table(
        title=f"Test MSE by reviews in the {side}'s history, 95% bootstrap intervals",
        caption=f"Intervals are too narrow below {FEW_PAIRS} pairs: rare large errors may be missing" if few else None,
    )
    for column in ("reviews", "pairs", *compared):
        table.add_column(column, justify="right")
    for name, scored in slices.items():
        table.add_row(name, str(scored[MODEL_NAME].pairs), *(str(scored[model].mse) for model in compared))
    return table


def _require_writable(directory: Path) -> None:
    """Raise ``InputError`` at once, rather than when the results are written, after minutes of tuning baselines."""
    try:
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise InputError(
            f"{directory} cannot be written ({error.strerror}), and the evaluation is saved there; copy the run, and "
            "evaluate its copy"
        ) from error


def _tuned_baselines(table: ReviewTable, split: Split, seed: int, *, other_domains: bool) -> list[BaselineRatings]:
    """Tune each on validation, under a progress bar: on a million reviews a candidate of SVD++ takes minutes.

    ``other_domains``: also baselines that learn from these, since the model has.
    """
    baselines = list(surprise_baselines())
    if other_domains:
        baselines += [with_other_domains(baseline) for baseline in baselines]
    rated = []
    for baseline in baselines:
        with progress_bar(f"tuning {baseline.name}", len(baseline.grid)) as advance:
            rated.append(tuned(baseline, table, split, seed, advance))
    return rated


def _sliced(errors: Mapping[str, Errors], slices: Mapping[str, NDArray[np.int64]]) -> dict[str, dict[str, Scores]]:
    return {name: scores({model: values[index] for model, values in errors.items()}) for name, index in slices.items()}


def _write_predictions(path: Path, table: ReviewTable, rated: RatedPairs) -> None:
    """One JSON line per test pair, to compare served ratings with."""
    columns = (rated.histories.pairs, rated.truth, rated.predicted, rated.low, rated.high)
    lines = [
        json.dumps(
            {
                "user": table.user[row],
                "item": table.item[row],
                "rating": truth,
                "predicted": predicted,
                "low": low,
                "high": high,
            }
        )
        for row, truth, predicted, low, high in zip(*(column.tolist() for column in columns), strict=True)
    ]
    write_text(path, "\n".join(lines) + "\n")
