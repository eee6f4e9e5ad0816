"""Flags that several commands share, and how they become the options of a stage."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ubert_model.config import ModelConfig, preset, require
from ubert_model.running.ray_engine import EngineName
from ubert_training.reviews.table import ReviewTable

console = Console(markup=False, highlight=False, soft_wrap=True)
"""What commands say. A path or a name with brackets is printed as it is, and a line as long as it is, for scripts."""

FOLDS = 5
"""Where no number is given."""

Reviews = Annotated[Path, typer.Option(help="What `ubert import` wrote: the directory, or its reviews.parquet.")]
SplitFile = Annotated[Path, typer.Option("--split", help="A split that `ubert split` wrote.")]
Out = Annotated[Path, typer.Option(help="Directory to write; killed before, the same command continues in it.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything that is drawn.")]
Force = Annotated[bool, typer.Option("--force", help="Discard what another configuration left in the directory.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda. Asked for and missing, cuda is an error.")]
Precision = Annotated[str, typer.Option(help="auto (bfloat16 where the device has it), fp32 or bf16.")]
Preset = Annotated[str, typer.Option(help="paper, minilm or tiny: the model's shape and options.")]
Backbone = Annotated[str | None, typer.Option(help="BERT checkpoint: path, hub name, or minilm.")]
EncoderLayers = Annotated[
    int | None,
    typer.Option(help="The backbone's first layers that encode; 0: all. Unset: the preset's, all of another backbone."),
]
StateDim = Annotated[int | None, typer.Option(help="Project review states to this dimension; 0 keeps the encoder's.")]
TokensARow = Annotated[int | None, typer.Option(help="Tokens that share a row of states, [CLS] apart.")]
MatchPooling = Annotated[str | None, typer.Option(help="max (Eq. 14) or mean over the rows of a side.")]
MaxLength = Annotated[int | None, typer.Option(help="Tokens of one review, [CLS] and [SEP] included.")]
MaxReviews = Annotated[int | None, typer.Option(help="Reviews a side, newest first.")]
MaxRows = Annotated[int | None, typer.Option(help="Rows of states a side, over all its reviews.")]
RatingBase = Annotated[str | None, typer.Option(help="none, or leave_one_out_bias beneath the network.")]
HistoryRatings = Annotated[
    bool | None, typer.Option("--history-ratings/--no-history-ratings", help="A history review's rating is an input.")
]
IdEmbeddings = Annotated[str | None, typer.Option(help="none, shrunk or free user and item embeddings.")]
Dropout = Annotated[float | None, typer.Option(help="Dropout above the encoder.")]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training reviews, at most.")]
PretrainEpochs = Annotated[int | None, typer.Option(help="Passes of pre-training.")]
FinetuneEpochs = Annotated[int | None, typer.Option(help="Passes of fine-tuning, at most.")]
BatchSize = Annotated[int | None, typer.Option(help="Reviews (or pairs) a step, over all processes.")]
LearningRate = Annotated[float | None, typer.Option(help="Peak step size of what stands above BERT.")]
EncoderLearningRate = Annotated[float | None, typer.Option(help="Peak step size of BERT; the paper's is 3e-5.")]
TrainableLayers = Annotated[
    int | None, typer.Option(help="Train only BERT's last layers, with --mode end-to-end; unset trains all.")
]
Accumulate = Annotated[int, typer.Option(help="Batches whose gradients are averaged before a step.")]
Pieces = Annotated[
    int | None,
    typer.Option(help="Parts a batch is computed in, each with dropout of its own; unset: one a process."),
]
ShardOptimizer = Annotated[
    bool, typer.Option("--shard-optimizer", help="Each process keeps its share of the optimizer's states.")
]
CheckpointSeconds = Annotated[float, typer.Option(help="Work that a killed run repeats, at most.")]
States = Annotated[Path | None, typer.Option(help="Where cached states lie; unset: states/ beside the run.")]
Engine = Annotated[EngineName, typer.Option(help="local: this process; ray: the workers of a Ray cluster.")]
RayAddress = Annotated[
    str | None, typer.Option(help="HOST:PORT of the Ray cluster; unset: one of this machine, for this command alone.")
]
Workers = Annotated[int, typer.Option(min=0, help="Ray workers; 0: as many as there are processors for.")]
WorkerCpus = Annotated[int, typer.Option(min=1, help="Processors, and threads, of one Ray worker.")]


def load_reviews(path: Path) -> ReviewTable:
    """A review table by its file or by the directory of an import."""
    return ReviewTable.load(table_file(path))


def table_file(path: Path) -> Path:
    """The file of a review table, given that or the directory of an import."""
    return path / "reviews.parquet" if path.is_dir() else path


def model_config(base: str | ModelConfig, table: ReviewTable, **options: object) -> ModelConfig:
    """A preset (or a former stage's configuration) with the flags that were given, on the table's scale."""
    config = preset(base) if isinstance(base, str) else base
    if options.get("encoder_layers") == 0 or options.get("backbone") not in {None, config.backbone}:
        config = config.with_all_layers()
    if options.get("encoder_layers") == 0:
        options["encoder_layers"] = None
    if options.get("state_dim") == 0:
        config = config.without_state_dim()
        options["state_dim"] = None
    return config.with_options(**options, scale=table.scale)


def require_file(name: str, path: Path) -> None:
    """Raise ``ConfigError`` where a file is to be written and a directory is named."""
    require(not path.is_dir(), f"--{name}", str(path), "this is a directory; give the file to write")


def require_unset(remedy: str, **flags: object) -> None:
    """Raise ``ConfigError`` for a flag that was given where it cannot apply; ``remedy`` says where it would."""
    for name, value in flags.items():
        shown = str(value) if isinstance(value, Path) else value
        require(value is None, f"--{name.replace('_', '-')}", shown, f"{remedy}, or leave it out")


def given(**options: object) -> dict[str, object]:
    """Only the flags that were given, so that the defaults of a stage stay in one place."""
    return {name: value for name, value in options.items() if value is not None}
