"""Flags that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from ubert_model.running.ray_engine import EngineName
from ubert_model.states import url_or_content
from ubert_training.running.seeds import MOST_SEED

Reviews = Annotated[Path, typer.Option(help="Output directory of `ubert import`, or its reviews.parquet.")]
SplitFile = Annotated[Path, typer.Option("--split", help="Split file that `ubert split` wrote.")]
Run = Annotated[Path, typer.Option(help="Output directory of `ubert finetune`.")]
Out = Annotated[Path, typer.Option(help="Directory to write. If killed, the same command continues in it.")]
Seed = Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Random seed.")]
Force = Annotated[bool, typer.Option("--force", help="Discard what another configuration left in the directory.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda. cuda fails where no GPU is found.")]
Store = Annotated[
    str,
    typer.Option(
        callback=url_or_content,
        help="redis://…, rediss://…, redis+cluster://…, lmdb:DIRECTORY, or file:PATH of a file with one of these.",
    ),
]
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
CheckpointSeconds = Annotated[
    float,
    typer.Option(
        help="Seconds between checkpoints, the most that a kill loses; with several processes, ten updates if these "
        "take longer."
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        help="Column names of CSV, TSV, Parquet or your own JSON lines, such as user=reviewer,item=sku,"
        "rating=stars,text=body,timestamp=when. Also: title, domain. A column left out keeps its own name."
    ),
]
Scale = Annotated[str | None, typer.Option(help="Lowest and highest rating, as LOWEST:HIGHEST. Unset: 1:5.")]
Core = Annotated[
    int | None,
    typer.Option(min=0, help="k-core: least number of reviews of every user and every item; 0 keeps all. Unset: 5."),
]
MaxBad = Annotated[
    float | None, typer.Option(help="Share of bad lines above which the import fails. Unset: 0.01, which is 1%.")
]
States = Annotated[Path | None, typer.Option(help="Directory of cached states. Unset: states/ beside the run.")]
Engine = Annotated[EngineName, typer.Option(help="local: this process; ray: the workers of a Ray cluster.")]
RayAddress = Annotated[
    str | None, typer.Option(help="HOST:PORT of the Ray cluster. Unset: a temporary one on this machine.")
]
Workers = Annotated[int, typer.Option(min=0, help="Ray workers; 0: as many as the processors allow.")]
WorkerCpus = Annotated[int, typer.Option(min=1, help="Processors, and threads, of one Ray worker.")]
