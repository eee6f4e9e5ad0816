"""`ubert pretrain`."""

from typing import Annotated, cast

import typer

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
from ubert_training.pretraining.corpus_rows import Corpus
from ubert_training.pretraining.lexicon import load_lexicon
from ubert_training.running.disk import require_outside
from ubert_training.running.stage import read_stage
from ubert_training.splits import Split


def pretrain_command(
    reviews: flags.Reviews,
    split: flags.SplitFile,
    out: flags.Out,
    preset: flags.Preset = "minilm",
    backbone: flags.Backbone = None,
    encoder_layers: flags.EncoderLayers = None,
    state_dim: flags.StateDim = None,
    max_length: flags.MaxLength = None,
    id_embeddings: flags.IdEmbeddings = None,
    corpus: Annotated[
        str, typer.Option(help="other-domains (as in the paper), target (its training part), or both.")
    ] = "both",
    fraction: Annotated[float, typer.Option(help="Share of the corpus to use (the paper's Figure 4).")] = 1.0,
    masking: Annotated[
        str, typer.Option(help="Words that task 1 masks: opinion, random (Table 3), or none (no task 1).")
    ] = "opinion",
    beta: Annotated[float, typer.Option(help="Weight of task 2, opinion rating prediction; 0: no task 2.")] = 3.0,
    lexicon: Annotated[
        str | None, typer.Option(help="Opinion words: a file, or a folder of positive/negative lists.")
    ] = None,
    epochs: flags.Epochs = None,
    batch_size: flags.BatchSize = None,
    learning_rate: flags.LearningRate = None,
    encoder_learning_rate: flags.EncoderLearningRate = None,
    trainable_layers: Annotated[
        int | None, typer.Option(help="Train only BERT's last N layers. Unset: 2 in the preset minilm, else all.")
    ] = None,
    accumulate: flags.Accumulate = 1,
    precision: flags.Precision = "auto",
    checkpoint_seconds: flags.CheckpointSeconds = 30.0,
    pieces: flags.Pieces = None,
    shard_optimizer: flags.ShardOptimizer = False,
    device: flags.Device = "auto",
    seed: flags.Seed = 0,
    force: flags.Force = False,
) -> None:
    """Pre-train the review encoder and the user encoder: masked opinion tokens and opinion ratings (Figure 2)."""
    if masking != "opinion":
        require_unset("opinion masking alone reads it: give it with --masking opinion", lexicon=lexicon)
    require_trained(trainable_layers, encoder_learning_rate)
    table = load_reviews(reviews)
    divided, words = Split.load(split, table), load_lexicon(lexicon)
    from ubert_training.optimization.loop import LoopOptions
    from ubert_training.pretraining.masking import MaskingStrategy
    from ubert_training.pretraining.pretrain import pretrain
    from ubert_training.pretraining.pretrain_options import PretrainOptions, default_loop, default_trainable_layers
    from ubert_training.running.devices import DeviceChoice
    from ubert_training.running.devices import Precision as PrecisionChoice
    from ubert_training.running.processes import is_main_process

    config = model_config(
        preset,
        table,
        backbone=backbone,
        encoder_layers=encoder_layers,
        state_dim=state_dim,
        pretrain_max_length=max_length,
        id_embeddings=id_embeddings,
    )
    loop = LoopOptions.of(
        default_loop(config.preset),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        accumulate=accumulate,
        checkpoint_seconds=checkpoint_seconds,
        pieces=pieces,
        shard_optimizer=shard_optimizer,
        precision=cast(PrecisionChoice, precision),
        seed=seed,
    )
    options = PretrainOptions(
        corpus=cast(Corpus, corpus),
        fraction=fraction,
        masking=cast(MaskingStrategy, masking),
        beta=beta,
        device=cast(DeviceChoice, device),
        trainable_layers=default_trainable_layers(config.preset) if trainable_layers is None else trainable_layers,
        loop=loop,
        **given(encoder_learning_rate=encoder_learning_rate),  # type: ignore[arg-type]
    )
    if force:
        require_outside(out, (reviews, split, lexicon, config.backbone))
    directory = pretrain(table, divided, config, words, options, out, force=force)
    if not is_main_process():
        return
    if masking == "opinion":
        console.print(f"opinion lexicon: {len(words.words)} words from {words.source}")
    summary = read_stage(directory)["summary"]
    if masking == "opinion" and not summary["opinion_words"]:
        console.print(
            "None of these words occurs in the reviews (words are what spaces and punctuation divide): task 1 masked "
            "nothing; give a list in the reviews' language with --lexicon"
        )
    console.print(
        f"{directory}: {summary['reviews']} reviews, embeddings of the {summary['users']} users with reviews in other "
        f"domains; validation loss {validation_history(summary['validation_losses'])}"
    )
