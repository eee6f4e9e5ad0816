"""Pre-training (Figure 2): masked opinion token prediction and opinion rating prediction."""

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from ubert_model.config import ModelConfig
from ubert_model.errors import InputError
from ubert_model.ids import Identities, IdTable
from ubert_model.nn.input_layer import UNKNOWN
from ubert_model.nn.pretraining_model import PretrainingModel
from ubert_model.nn.review_encoder import ReviewEncoder
from ubert_model.running.atomic import write_text
from ubert_model.tokenizer import ReviewTokenizer
from ubert_training.optimization.loop import discard_checkpoint, require_runnable, train
from ubert_training.pretraining.corpus_rows import pretraining_rows
from ubert_training.pretraining.lexicon import Lexicon
from ubert_training.pretraining.masking import Masker
from ubert_training.pretraining.pretrain_options import PretrainOptions
from ubert_training.pretraining.pretraining_task import PretrainingTask
from ubert_training.reviews.table import ReviewTable, Rows
from ubert_training.running.devices import make_accelerator
from ubert_training.running.digests import digest_of
from ubert_training.running.stage import Stage
from ubert_training.splits import Split
from ubert_training.states.projection_init import initialize_projection
from ubert_training.states.review_states import ReviewStates
from ubert_training.weights.backbones import (
    backbone_config,
    freeze_all_but_last,
    load_backbone,
    load_tokenizer,
    require_compatible,
)
from ubert_training.weights.model_files import save_model

KIND = "pretrain"
LEAST_READABLE = 2
CORPUS_READ = "corpus.txt"
"""Ids of the reviews that were read, one per line: no later split may evaluate on any of them."""


def pretrain(
    table: ReviewTable,
    split: Split,
    config: ModelConfig,
    lexicon: Lexicon,
    options: PretrainOptions,
    directory: Path,
    *,
    force: bool = False,
) -> Path:
    """Pre-train and save the model in ``directory``. A finished run is left as it is; a killed one is continued.

    Raises ``InputError`` or ``ConfigError`` for what cannot be trained, ``DeviceUnavailableError`` for a missing GPU.
    """
    rows = rows_read(table, split, options)
    stage = Stage(directory, KIND, pretraining_inputs(table, split, rows, config, lexicon, options))
    accelerator = make_accelerator(options.device)
    if not stage.is_finished():  # checked first: a refused run neither creates nor discards a directory
        require_pretrainable(table, rows, config, options, accelerator)
    with stage.held(accelerator, force=force) as finished:
        if not finished:
            _train_and_save(table, split, rows, config, lexicon, options, stage, accelerator)
        if accelerator.is_main_process:
            discard_checkpoint(directory)  # a run killed right after it finished leaves one, too
    return directory


def require_pretrainable(
    table: ReviewTable, rows: Rows, config: ModelConfig, options: PretrainOptions, accelerator: Accelerator
) -> None:
    """Raise ``ConfigError`` for a model that the backbone does not allow, or that this machine cannot train, and
    ``InputError`` if fewer than two of the reviews at ``rows`` have text: one to train on, one to validate on.
    """
    bert = backbone_config(config.backbone, config.encoder_layers)
    require_compatible(bert, "pretrain_max_length", config.pretrain_max_length, options.trainable_layers)
    require_runnable(options.loop, accelerator)
    tokenizer = ReviewTokenizer(load_tokenizer(config.backbone), config.pretrain_max_length)
    with_text = (row for row in rows.tolist() if tokenizer.encode([table.text[row]])[0])
    found = len(list(islice(with_text, LEAST_READABLE)))
    if found < LEAST_READABLE:
        raise InputError(
            f"{found} of the {len(rows)} reviews of corpus {options.corpus!r} have text, and pre-training needs "
            f"{LEAST_READABLE}, one of them for validation: use more reviews, or fine-tune without --pretrained"
        )


def _train_and_save(
    table: ReviewTable,
    split: Split,
    rows: NDArray[np.int64],
    config: ModelConfig,
    lexicon: Lexicon,
    options: PretrainOptions,
    stage: Stage,
    accelerator: Accelerator,
) -> None:
    """The work of :func:`pretrain` on the reviews at ``rows``, in the stage's directory."""
    directory = stage.directory
    torch.manual_seed(options.loop.seed)
    backbone = load_backbone(config.backbone, config.encoder_layers)
    freeze_all_but_last(backbone.bert, options.trainable_layers)
    encoder = ReviewEncoder(backbone.bert, config.state_dim)
    # The target's own reviews train the encoder, but under the unknown user: a user embedding trained on them would
    # carry the ratings of the very pairs that fine-tuning goes on to predict (law 5; measured in README, Decisions).
    in_target = np.isin(rows, split.rows)
    users = IdTable.of(table.user[row] for row in rows[~in_target].tolist())
    domains = IdTable.of(table.domains)
    identities = Identities(users, IdTable(()), domains, {}, domains.identifiers[0])
    mean_rating = float(table.rating[rows].mean())
    model = PretrainingModel(encoder, config, users=len(users), domains=len(domains), mean_rating=mean_rating)
    tokenizer = ReviewTokenizer(backbone.tokenizer_json, config.pretrain_max_length)
    masker = Masker(tokenizer, lexicon.words, options.masking)
    user_rows = np.where(in_target, UNKNOWN, identities.users.rows(table.user[row] for row in rows.tolist()))
    task = PretrainingTask(model, table, rows, user_rows, identities, tokenizer, masker, options, accelerator)
    writers = [table.user[row] for row in rows.tolist()]
    states = ReviewStates(encoder=encoder.to(accelerator.device).eval(), tokens=task.tokens, bank=None)
    initialize_projection(states, task.training_rows, writers, options.loop.seed)
    progress = train(task, options.loop, directory, accelerator, "pre-training", stage.fingerprint)
    if accelerator.is_main_process:
        save_model(directory, model, encoder, config, backbone.tokenizer_json, identities)
        write_text(directory / CORPUS_READ, "".join(f"{table.review_id[row]}\n" for row in rows.tolist()))
        stage.finish(
            {
                "reviews": len(rows),
                "users": len(users),
                "lexicon": lexicon.source,
                "opinion_words": len(task.maskable.values),
                "best_epoch": progress.best_epoch,
                "validation_losses": progress.validation_losses,
            }
        )


def pretraining_inputs(
    table: ReviewTable,
    split: Split,
    read: NDArray[np.int64],
    config: ModelConfig,
    lexicon: Lexicon,
    options: PretrainOptions,
) -> dict[str, Any]:
    """All that determines a model pre-trained on the rows ``read``. Of the split, only these rows and the target count:
    splits that agree in both share a model, as do folds of one target after pre-training in other domains.
    """
    target = np.sort(split.rows)
    return {
        **table.digests,
        "reviews": digest_of(table.review_id[row] for row in read.tolist()),
        "target": digest_of(table.review_id[row] for row in target.tolist()),
        "config": config,
        "options": options,
        "lexicon": lexicon.digest if options.masking == "opinion" else None,
    }


def rows_read(table: ReviewTable, split: Split, options: PretrainOptions) -> NDArray[np.int64]:
    """Rows that pre-training with these options reads. Raises ``InputError`` if there are too few."""
    return pretraining_rows(table, split, options.corpus, fraction=options.fraction, seed=options.loop.seed)
