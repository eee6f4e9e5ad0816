"""The plot of an evaluation."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ubert_training.evaluation.evaluate import MODEL_NAME, Evaluation
from ubert_training.evaluation.figures import save_figure
from ubert_training.evaluation.metrics import Scores

PLOT = "evaluation.png"


def plot_evaluation(evaluation: Evaluation, path: Path) -> None:
    """MSE with its interval by model, and by length of the user's and of the item's history."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    overall, by_user, by_item = figure.subplots(1, 3)
    _by_model(overall, evaluation.scores)
    compared = [MODEL_NAME, evaluation.best_baseline]
    _by_history(by_user, evaluation.by_user_history, compared, "reviews in the user's history")
    _by_history(by_item, evaluation.by_item_history, compared, "reviews in the item's history")
    save_figure(figure, path)


def _by_model(axes: Axes, scored: Mapping[str, Scores]) -> None:
    names = sorted(scored, key=lambda name: scored[name].mse.value, reverse=True)
    for position, name in enumerate(names):
        _interval(axes, scored[name], position, color="C0" if name == MODEL_NAME else "0.4", horizontal=True)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("test MSE, 95% interval")


def _by_history(axes: Axes, slices: Mapping[str, Mapping[str, Scores]], compared: list[str], label: str) -> None:
    for number, model in enumerate(compared):
        color = "C0" if model == MODEL_NAME else "0.4"
        for position, scored in enumerate(slices.values()):
            _interval(axes, scored[model], position + 0.15 * number, color=color, horizontal=False)
        axes.plot([], [], marker="o", color=color, label=model)
    ticks = [f"{name}\n({scored[MODEL_NAME].pairs} pairs)" for name, scored in slices.items()]
    axes.set_xticks(range(len(ticks)), ticks)
    axes.set_xlabel(label)
    axes.set_ylabel("test MSE")
    axes.legend()


def _interval(axes: Axes, scored: Scores, position: float, *, color: str, horizontal: bool) -> None:
    mse = scored.mse
    bar = [[length] for length in mse.error_bar]
    if horizontal:
        axes.errorbar(mse.value, position, xerr=bar, fmt="o", color=color, capsize=3)
    else:
        axes.errorbar(position, mse.value, yerr=bar, fmt="o", color=color, capsize=3)
