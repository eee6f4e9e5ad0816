"""The plots of ``ubert bench accuracy``."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ubert_training.accuracy.summary import AccuracyReport, Slice
from ubert_training.evaluation.figures import save_figure

_LINEAR = 0.01
"""Stars² up to which the axis is linear: most differences of interest lie within, the worst baselines far beyond."""
_TICKS = [sign * size for sign in (-1, 1) for size in (1.0, 0.3, 0.1, 0.03, 0.01, 0.005)] + [0.0]


def plot_models(report: AccuracyReport, path: Path) -> None:
    """U-BERT's MSE minus every other model's on the same pairs, with its interval, from the best model down.

    Not the MSE itself: it varies many times more between folds than between models on one fold.
    """
    compared = [(model, model.difference) for model in reversed(report.models) if model.difference is not None]
    figure = Figure(figsize=(9, 1.5 + 0.3 * len(compared)), layout="constrained")
    axes = figure.subplots()
    for position, (model, difference) in enumerate(compared):
        color = "0.4" if model.baseline else "C0"
        axes.errorbar(
            difference.value, position, xerr=[[bar] for bar in difference.error_bar], fmt="o", color=color, capsize=3
        )
    axes.axvline(0, color="0.5", linestyle="--")
    axes.set_yticks(range(len(compared)), [f"{model.name} ({model.mse:.4f})" for model, _ in compared])
    label = "MSE of U-BERT − this in stars², 95% interval; baselines grey"
    if max(abs(end) for _, difference in compared for end in (difference.low, difference.high)) > 2 * _LINEAR:
        axes.set_xscale("symlog", linthresh=_LINEAR)
        low, high = axes.get_xlim()
        axes.set_xticks([tick for tick in _TICKS if low <= tick <= high])
        label += f"\nlogarithmic beyond ±{_LINEAR:g}"
    axes.xaxis.set_major_formatter("{x:+g}")
    axes.set_xlabel(label)
    save_figure(figure, path)


def plot_slices(report: AccuracyReport, path: Path) -> None:
    """Difference to the best baseline with its interval, by length of the user's and of the item's history."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, side in zip(figure.subplots(1, 2, sharey=True), ("user", "item"), strict=True):
        _by_history(axes, [entry for entry in report.slices if entry.side == side], side)
    figure.suptitle(f"MSE of U-BERT − {report.best_baseline}, 95% interval")
    save_figure(figure, path)


def _by_history(axes: Axes, slices: list[Slice], side: str) -> None:
    for position, entry in enumerate(slices):
        axes.errorbar(
            position,
            entry.difference.value,
            yerr=[[bar] for bar in entry.difference.error_bar],
            fmt="o",
            color="C0",
            capsize=3,
        )
    axes.axhline(0, color="0.5", linestyle="--")
    axes.set_xticks(range(len(slices)), [f"{entry.reviews}\n({entry.pairs} pairs)" for entry in slices])
    axes.set_xlabel(f"reviews in the {side}'s history")
