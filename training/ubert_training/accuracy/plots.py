"""The pictures of ``ubert bench accuracy``."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ubert_model.atomic import replacing
from ubert_training.accuracy.summary import AccuracyReport, Slice


def plot_models(report: AccuracyReport, path: Path) -> None:
    """MSE of every model, its spread over cells, worst first from above."""
    models = [model for model in report.models if model.cells][::-1]
    figure = Figure(figsize=(9, 1.5 + 0.3 * len(models)), layout="constrained")
    axes = figure.subplots()
    for position, model in enumerate(models):
        color = "0.4" if model.baseline else "C0"
        axes.errorbar(model.mse, position, xerr=model.spread, fmt="o", color=color, capsize=3)
    axes.set_yticks(range(len(models)), [model.name for model in models])
    axes.set_xlabel("test MSE in stars², ± standard deviation over cells; baselines grey")
    _save(figure, path)


def plot_slices(report: AccuracyReport, path: Path) -> None:
    """Difference to the best baseline with its interval, by length of the user's and of the item's history."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, side in zip(figure.subplots(1, 2, sharey=True), ("user", "item"), strict=True):
        _by_history(axes, [entry for entry in report.slices if entry.side == side], side)
    figure.suptitle(f"MSE of U-BERT − {report.best_baseline}, 95% interval")
    _save(figure, path)


def _by_history(axes: Axes, slices: list[Slice], side: str) -> None:
    for position, entry in enumerate(slices):
        difference = entry.difference
        spread = [[difference.value - difference.low], [difference.high - difference.value]]
        axes.errorbar(position, difference.value, yerr=spread, fmt="o", color="C0", capsize=3)
    axes.axhline(0, color="0.5", linestyle="--")
    axes.set_xticks(range(len(slices)), [f"{entry.reviews}\n({entry.pairs} pairs)" for entry in slices])
    axes.set_xlabel(f"reviews in the {side}'s history")


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=120)
