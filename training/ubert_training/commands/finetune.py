"""`ubert finetune`."""

from pathlib import Path
from typing import Annotated, cast

import typer

from ubert_model.config import ModelConfig
from ubert_model.validation import require
from ubert_training.commands import flags
from ubert_training.commands.options import (
    console,
    given,
    load_reviews,
    model_config,
    require_trained,
    require_unset,
    validation_history,
)
from ubert_training.running.disk import require_outside
from ubert_training.running.stage import read_stage
from ubert_training.splits import Split


def finetune_command(
    reviews: flags.Reviews,
    split: flags.SplitFile,
    out: flags.Out,
    pretrained: Annotated[
        Path | None, typer.Option(help="Output directory of `ubert pretrain`. Unset: the plain backbone.")
    ] = None,
    mode: Annotated[
        str, typer.Option(help="cached (frozen encoder, minutes on a CPU) or end-to-end (needs a GPU).")
    ] = "cached",
    states: flags.States = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="paper, minilm or tiny: the model's shape and options. Unset: the pre-trained model's, or minilm."
        ),
    ] = None,
    backbone: flags.Backbone = None,
    encoder_layers: flags.EncoderLayers = None,
    state_dim: flags.StateDim = None,
    tokens_a_row: flags.TokensARow = None,
    match_pooling: flags.MatchPooling = None,
    max_length: flags.MaxLength = None,
    max_reviews: flags.MaxReviews = None,
    max_rows: flags.MaxRows = None,
    rating_base: flags.RatingBase = None,
    history_ratings: flags.HistoryRatings = None,
    id_embeddings: flags.IdEmbeddings = None,
    dropout: flags.Dropout = None,
    epochs: flags.Epochs = None,
    patience: Annotated[int | None, typer.Option(help="Stop after this many epochs without improvement.")] = None,
    batch_size: flags.BatchSize = None,
    learning_rate: flags.LearningRate = None,
    encoder_learning_rate: flags.EncoderLearningRate = None,
    projection_learning_rate: Annotated[
        float | None, typer.Option(help="Peak learning rate of the projection of states, which alignment depends on.")
    ] = None,
    trainable_layers: flags.TrainableLayers = None,
    accumulate: flags.Accumulate = 1,
    precision: flags.Precision = "auto",
    checkpoint_seconds: flags.CheckpointSeconds = 30.0,
    pieces: flags.Pieces = None,
    shard_optimizer: flags.ShardOptimizer = False,
    device: flags.Device = "auto",
    seed: flags.Seed = 0,
    force: flags.Force = False,
) -> None:
    """Fine-tune on the target domain: item encoder, co-matching and prediction layer (Figure 3).

    After pre-training, --preset, --backbone, --encoder-layers and --state-dim are those of the pre-trained model;
    other values are refused.
    """
    if mode == "cached":
        frozen = "cached states come from a frozen encoder: give it with --mode end-to-end"
        require_unset(frozen, encoder_learning_rate=encoder_learning_rate, trainable_layers=trainable_layers)
    elif mode == "end-to-end":
        require_unset("end-to-end has no cached states: give it with --mode cached", states=states)
        require_trained(trainable_layers, encoder_learning_rate)
    table = load_reviews(reviews)
    divided = Split.load(split, table)
    if pretrained:
        read_stage(pretrained)
    from ubert_training.finetuning.finetune import finetune
    from ubert_training.finetuning.finetune_options import FinetuneOptions, Mode, default_loop
    from ubert_training.optimization.loop import LoopOptions
    from ubert_training.pretraining.pretrain import KIND as PRETRAIN
    from ubert_training.running.devices import DeviceChoice
    from ubert_training.running.devices import Precision as PrecisionChoice
    from ubert_training.running.processes import is_main_process
    from ubert_training.weights.model_files import load_model

    base = load_model(pretrained, PRETRAIN).config if pretrained else preset or "minilm"
    if isinstance(base, ModelConfig):
        same = preset in (None, base.preset)
        require(same, "--preset", preset, f"{pretrained} was pre-trained with {base.preset!r}; leave the flag out")
    config = model_config(
        base,
        table,
        backbone=backbone,
        encoder_layers=encoder_layers,
        state_dim=state_dim,
        tokens_a_row=tokens_a_row,
        match_pooling=match_pooling,
        max_length=max_length,
        max_reviews=max_reviews,
        max_rows=max_rows,
        rating_base=rating_base,
        history_ratings=history_ratings,
        id_embeddings=id_embeddings,
        dropout=dropout,
    )
    if config.state_dim is None:
        whole = "the states are not projected: give it with --state-dim"
        require_unset(whole, projection_learning_rate=projection_learning_rate)
    loop = LoopOptions.of(
        default_loop(mode),
        epochs=epochs,
        patience=patience,
        batch_size=batch_size,
        learning_rate=learning_rate,
        accumulate=accumulate,
        checkpoint_seconds=checkpoint_seconds,
        pieces=pieces,
        shard_optimizer=shard_optimizer,
        precision=cast(PrecisionChoice, precision),
        seed=seed,
    )
    options = FinetuneOptions(
        mode=cast(Mode, mode),
        device=cast(DeviceChoice, device),
        trainable_layers=trainable_layers,
        loop=loop,
        **given(  # type: ignore[arg-type]
            encoder_learning_rate=encoder_learning_rate, projection_learning_rate=projection_learning_rate
        ),
    )
    if force:
        require_outside(out, (reviews, split, pretrained, config.backbone))
    directory = finetune(
        table,
        divided,
        config,
        options,
        out,
        pretrained=pretrained,
        states=states or out.with_name("states"),
        force=force,
    )
    if not is_main_process():
        return
    summary = read_stage(directory)["summary"]
    kept = f"; {summary['blend_weight']:.0%} of the network's correction to the bias part is kept"
    console.print(
        f"{directory}: {summary['pairs']} pairs; validation MSE {validation_history(summary['validation_losses'])}"
        f"{kept if config.above_bias else ''}"
    )
    if summary["pairs_with_text"] == 0:
        console.print("No training pair has text on both sides: nothing trained the network, the biases alone rate")
