"""How the flags of commands turn into the options of a stage."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from ubert_model.config import ModelConfig, RatingScale, preset
from ubert_model.errors import ConfigError
from ubert_model.validation import require
from ubert_training.reviews.options import ImportOptions
from ubert_training.reviews.table import ReviewTable

console = Console(markup=False, highlight=False, soft_wrap=True)
"""The output of commands. Brackets in paths and names are printed literally and lines are not wrapped, for scripts."""

FOLDS = 5
"""The default number of folds."""


def load_reviews(path: Path) -> ReviewTable:
    """Load a review table, given its file or the directory of an import."""
    return ReviewTable.load(table_file(path))


def table_file(path: Path) -> Path:
    """The file of a review table, given that file or the directory of an import."""
    return path / "reviews.parquet" if path.is_dir() else path


def model_config(base: str | ModelConfig, table: ReviewTable, **options: object) -> ModelConfig:
    """A preset, or the configuration of an earlier stage, with the given flags applied, on the table's rating scale."""
    config = preset(base) if isinstance(base, str) else base
    if options.get("encoder_layers") == 0 or options.get("backbone") not in {None, config.backbone}:
        config = replace(config, encoder_layers=None)
    if options.get("encoder_layers") == 0:
        options["encoder_layers"] = None
    if options.get("state_dim") == 0:
        config = replace(config, state_dim=None)
        options["state_dim"] = None
    return config.with_options(**options, scale=table.scale)


def import_options(*, columns: str | None, scale: str | None, **options: object) -> ImportOptions:
    """The options of an import; a flag that was not given has the default there. Raises ``ConfigError``."""
    return ImportOptions(
        **given(  # type: ignore[arg-type]
            columns=None if columns is None else parse_columns(columns),
            scale=None if scale is None else RatingScale.parse(scale),
            **options,
        )
    )


def parse_columns(text: str) -> dict[str, str]:
    """Parse ``column=name,column=name``. Raises ``ConfigError``."""
    columns: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        column, equals, name = (part.strip() for part in pair.partition("="))
        if not (column and equals and name) or column in columns:
            raise ConfigError(f"--columns {text!r}: write COLUMN=NAME once for each, separated by commas")
        columns[column] = name
    return columns


def validation_history(losses: Sequence[float]) -> str:
    """The validation losses of a stage, of which the first is that of the model it started from."""
    start, *epochs = (f"{loss:.4f}" for loss in losses)
    return f"before training {start}, after each epoch {', '.join(epochs)}"


def require_file(name: str, path: Path) -> None:
    """Raise ``ConfigError`` if ``path``, where a file is to be written, is a directory."""
    require(not path.is_dir(), f"--{name}", str(path), "this is a directory; give the file to write")


def require_unset(remedy: str, **flags: object) -> None:
    """Raise ``ConfigError`` for a flag that was given but cannot apply; ``remedy`` says when it would."""
    for name, value in flags.items():
        shown = str(value) if isinstance(value, Path) else value
        require(value is None, f"--{name.replace('_', '-')}", shown, f"{remedy}, or leave it out")


def require_trained(trainable_layers: int | None, encoder_learning_rate: float | None) -> None:
    """Raise ``ConfigError`` for a learning rate of BERT that was given although none of its layers is trained."""
    if trainable_layers == 0:
        frozen = "BERT is frozen: give it with another --trainable-layers"
        require_unset(frozen, encoder_learning_rate=encoder_learning_rate)


def given(**options: object) -> dict[str, object]:
    """Only the flags that were given, so that the defaults of a stage are defined in one place."""
    return {name: value for name, value in options.items() if value is not None}
