"""Flags that several commands share, and how they turn into the options of a stage."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ubert_model.config import ModelConfig, preset, require
from ubert_model.running.ray_engine import EngineName
from ubert_training.reviews.table import ReviewTable

console = Console(markup=False, highlight=False, soft_wrap=True)
"""The output of commands. Brackets in paths and names are printed literally and lines are not wrapped, for scripts."""

FOLDS = 5
"""The default number of folds."""

Reviews = Annotated[Path, typer.Option(help="Output directory of `ubert import`, or its reviews.parquet.")]
SplitFile = Annotated[Path, typer.Option("--split", help="Split file that `ubert split` wrote.")]
Out = Annotated[Path, typer.Option(help="Directory to write. If killed, the same command continues in it.")]
Seed = Annotated[int, typer.Option(min=0, help="Random seed.")]
Force = Annotated[bool, typer.Option("--force", help="Discard what another configuration left in the directory.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda. cuda fails where no GPU is found.")]
Precision = Annotated[str, typer.Option(help="auto (bfloat16 where the device has it), fp32 or bf16.")]
Preset = Annotated[str, typer.Option(help="paper, minilm or tiny: the model's shape and options.")]
Backbone = Annotated[str | None, typer.Option(help="BERT checkpoint: path, hub name, or minilm.")]
EncoderLayers = Annotated[
    int | None,
    typer.Option(help="Use only the backbone's first N layers; 0: all. Unset: the preset's, all of another backbone."),
]
StateDim = Annotated[int | None, typer.Option(help="Project review states to this dimension; 0 keeps the encoder's.")]
TokensARow = Annotated[int | None, typer.Option(help="Tokens that share a row of states; [CLS] has its own.")]
MatchPooling = Annotated[str | None, typer.Option(help="max (Eq. 14) or mean over the rows of a side.")]
MaxLength = Annotated[int | None, typer.Option(help="Maximum tokens of one review, [CLS] and [SEP] included.")]
MaxReviews = Annotated[int | None, typer.Option(help="Maximum reviews per side of a pair, newest first.")]
MaxRows = Annotated[int | None, typer.Option(help="Maximum rows of states per side of a pair, over all its reviews.")]
RatingBase = Annotated[str | None, typer.Option(help="What the network adds to: none, or leave_one_out_bias.")]
HistoryRatings = Annotated[
    bool | None, typer.Option("--history-ratings/--no-history-ratings", help="Use the history's ratings as input.")
]
IdEmbeddings = Annotated[str | None, typer.Option(help="User and item embeddings: none, shrunk or free.")]
Dropout = Annotated[float | None, typer.Option(help="Dropout above the encoder.")]
Epochs = Annotated[int | None, typer.Option(help="Maximum number of epochs.")]
PretrainEpochs = Annotated[int | None, typer.Option(help="Epochs of pre-training.")]
FinetuneEpochs = Annotated[int | None, typer.Option(help="Maximum number of epochs of fine-tuning.")]
BatchSize = Annotated[int | None, typer.Option(help="Reviews (or pairs) per step, over all processes.")]
LearningRate = Annotated[float | None, typer.Option(help="Peak learning rate of the layers above BERT.")]
EncoderLearningRate = Annotated[float | None, typer.Option(help="Peak learning rate of BERT; the paper's is 3e-5.")]
TrainableLayers = Annotated[
    int | None, typer.Option(help="Train only BERT's last N layers, with --mode end-to-end. Unset: all.")
]
Accumulate = Annotated[int, typer.Option(help="Batches whose gradients are averaged before a step.")]
Pieces = Annotated[
    int | None, typer.Option(help="Microbatches per batch, each with its own dropout. Unset: one per process.")
]
ShardOptimizer = Annotated[
    bool, typer.Option("--shard-optimizer", help="Shard the optimizer's states over the processes.")
]
CheckpointSeconds = Annotated[float, typer.Option(help="Seconds between checkpoints, the most that a kill loses.")]
States = Annotated[Path | None, typer.Option(help="Directory of cached states. Unset: states/ beside the run.")]
Engine = Annotated[EngineName, typer.Option(help="local: this process; ray: the workers of a Ray cluster.")]
RayAddress = Annotated[
    str | None, typer.Option(help="HOST:PORT of the Ray cluster. Unset: a temporary one on this machine.")
]
Workers = Annotated[int, typer.Option(min=0, help="Ray workers; 0: as many as the processors allow.")]
WorkerCpus = Annotated[int, typer.Option(min=1, help="Processors, and threads, of one Ray worker.")]


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


def require_file(name: str, path: Path) -> None:
    """Raise ``ConfigError`` if ``path``, where a file is to be written, is a directory."""
    require(not path.is_dir(), f"--{name}", str(path), "this is a directory; give the file to write")


def require_unset(remedy: str, **flags: object) -> None:
    """Raise ``ConfigError`` for a flag that was given but cannot apply; ``remedy`` says when it would."""
    for name, value in flags.items():
        shown = str(value) if isinstance(value, Path) else value
        require(value is None, f"--{name.replace('_', '-')}", shown, f"{remedy}, or leave it out")


def given(**options: object) -> dict[str, object]:
    """Only the flags that were given, so that the defaults of a stage are defined in one place."""
    return {name: value for name, value in options.items() if value is not None}
