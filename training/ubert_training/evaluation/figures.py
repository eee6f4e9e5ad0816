"""Plots as PNG files."""

from pathlib import Path

from matplotlib.figure import Figure

from ubert_model.running.atomic import replacing


def save_figure(figure: Figure, path: Path) -> None:
    """Written whole or not at all."""
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=120)
