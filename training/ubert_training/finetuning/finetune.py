"""Fine-tuning (Figure 3): rating prediction on the target domain, end to end or over cached states."""

from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from transformers import BertConfig

from ubert_model.bundle import TEXT_READER
from ubert_model.config import ModelConfig
from ubert_model.ids import Identities, IdTable
from ubert_model.nn.rating_model import RatingModel
from ubert_model.nn.review_encoder import ReviewEncoder
from ubert_model.rating.text_reader import TextReader
from ubert_model.running.atomic import replacing
from ubert_model.tokenizer import ReviewTokenizer
from ubert_training.finetuning.finetune_options import FinetuneOptions
from ubert_training.finetuning.finetuning_task import FinetuningTask
from ubert_training.finetuning.histories import KnownReviews
from ubert_training.finetuning.pair_batches import PairSource
from ubert_training.finetuning.prediction_init import solve_prediction_layer
from ubert_training.finetuning.pretrained_model import PretrainedModel
from ubert_training.finetuning.reader_fit import fit_text_reader, surpluses_of
from ubert_training.optimization.loop import discard_checkpoint, require_runnable, train
from ubert_training.pretraining.corpus_rows import rows_elsewhere
from ubert_training.reviews.table import ReviewTable, Rows
from ubert_training.running.devices import Precision, make_accelerator, uses_bfloat16
from ubert_training.running.disk import translated_write_errors
from ubert_training.running.stage import Stage
from ubert_training.splits import Split
from ubert_training.states.codebooks import codebooks_of, save_codebooks
from ubert_training.states.projection_init import initialize_projection
from ubert_training.states.review_states import ReviewStates
from ubert_training.states.state_bank import StateBank, encoder_digest, fill_bank
from ubert_training.states.tokens import TokenizedReviews
from ubert_training.weights.backbones import backbone_config, freeze_all_but_last, load_backbone, require_compatible
from ubert_training.weights.model_files import save_model

KIND = "finetune"
SPLIT = "split.parquet"
ELSEWHERE = "reviews_elsewhere.npy"
"""The rows of the table in other domains whose ratings the bias model reads: int64, ascending."""


def finetune(
    table: ReviewTable,
    split: Split,
    config: ModelConfig,
    options: FinetuneOptions,
    directory: Path,
    *,
    pretrained: Path | None,
    states: Path,
    force: bool = False,
    only_measured: bool = False,
) -> Path:
    """Fine-tune and save the model in ``directory``; ``states`` is the directory of cached states.

    ``only_measured``: the model will never be exported, so it gets no codebooks, and the cached states are those that
    it reads itself, in the precision of training, not all in fp32 as the service computes them.

    Without ``pretrained`` the encoder is the plain backbone (the paper's U-BERT P−). A finished run is left as it is;
    a killed one is continued. Raises ``InputError``, ``ConfigError`` or ``DeviceUnavailableError``, and ``OSError`` if
    the disk is full.
    """
    loaded = None if pretrained is None else PretrainedModel.load(pretrained)
    if loaded is not None:
        loaded.require_compatible(table, split, config)
    inputs = {
        **table.digests,
        "split": split.digests(table),
        "config": config,
        "options": options,
        "pretrained": None if loaded is None else loaded.fingerprint,
        **({"only_measured": True} if only_measured else {}),
    }
    stage = Stage(directory, KIND, inputs)
    accelerator = make_accelerator(options.device)
    if not stage.is_finished():  # checked first: a refused run neither creates nor discards a directory
        require_finetunable(config, options, accelerator, None if loaded is None else loaded.files.bert_config)
    with stage.held(accelerator, force=force) as finished:
        if not finished:
            _train_and_save(table, split, config, options, loaded, states, stage, accelerator, only_measured)
        if accelerator.is_main_process:
            discard_checkpoint(directory)  # a run killed right after it finished leaves one, too
    return directory


def require_finetunable(
    config: ModelConfig, options: FinetuneOptions, accelerator: Accelerator, bert: BertConfig | None = None
) -> None:
    """Raise ``ConfigError`` for a model that ``bert`` (None: the backbone) does not allow, or this machine cannot
    train.
    """
    bert = bert or backbone_config(config.backbone, config.encoder_layers)
    require_compatible(bert, "max_length", config.max_length, options.trainable_layers)
    require_runnable(options.loop, accelerator)


def _train_and_save(
    table: ReviewTable,
    split: Split,
    config: ModelConfig,
    options: FinetuneOptions,
    pretrained: PretrainedModel | None,
    states: Path,
    stage: Stage,
    accelerator: Accelerator,
    only_measured: bool,
) -> None:
    """The work of :func:`finetune`, in the stage's directory."""
    directory = stage.directory
    torch.manual_seed(options.loop.seed)
    elsewhere = rows_elsewhere(table, split, frozenset() if pretrained is None else pretrained.reviews_read)
    identities = target_identities(table, split, elsewhere)
    model, tokenizer_json = _initial_model(config, identities, table, split, pretrained)
    tokenizer = ReviewTokenizer(tokenizer_json, config.max_length)
    encoded = rows_encoded(split, pretrained=pretrained is not None, only_measured=only_measured)
    tokens = TokenizedReviews.of(table.texts_at(encoded), tokenizer)
    freeze_all_but_last(model.review_encoder.bert, 0 if options.mode == "cached" else options.trainable_layers)
    encoder = model.review_encoder.to(accelerator.device).eval()
    bank = None
    if options.mode == "cached":
        with accelerator.main_process_first():
            precision = states_precision(options.loop.precision, only_measured=only_measured)
            bank = cached_states(states, encoder, tokens, tokenizer, precision)
    review_states = ReviewStates(encoder=encoder, tokens=tokens, bank=bank)
    # Also after pre-training, whose projection suits its own tasks and not the alignment of reviews.
    initialize_projection(review_states, split.train, table.user, options.loop.seed)
    source = PairSource(table=table, identities=identities, tokens=tokens, bank=bank, tokens_a_row=config.tokens_a_row)
    reader = fit_text_reader(table, np.union1d(split.train, elsewhere), tokenizer_json)
    known = known_reviews(table, tokens, split, config, reader, elsewhere)
    task = FinetuningTask(model, source, known, split, options, accelerator)
    model.to(accelerator.device)
    if config.above_bias:
        solve_prediction_layer(task)
    progress = train(task, options.loop, directory, accelerator, "fine-tuning", stage.fingerprint)
    parts = task.rating_parts(progress)
    if accelerator.is_main_process:
        save_model(directory, model, encoder, config, tokenizer_json, identities)
        with translated_write_errors(directory, SafetensorError):
            parts.save(directory)
            with replacing(directory / TEXT_READER) as partial:
                reader.save(partial)
            if not only_measured:
                save_codebooks(codebooks_of(review_states, split.train, options.loop.seed), directory)
        split.save(directory / SPLIT, table)
        with replacing(directory / ELSEWHERE) as partial, partial.open("wb") as file:
            np.save(file, elsewhere.astype("<i8"), allow_pickle=False)
        stage.finish(
            {
                "pairs": len(split.train),
                "pairs_with_text": len(task.readable),
                "reviews_elsewhere": len(elsewhere),
                "best_epoch": progress.best_epoch,
                "validation_losses": progress.validation_losses,
                "blend_weight": parts.blend.weight,
            }
        )


def target_identities(table: ReviewTable, split: Split, elsewhere: Rows | None = None) -> Identities:
    """The users and items of the training part, and every domain of the table.

    ``elsewhere``: rows of other domains, whose users are added.
    """
    rows = split.train.tolist()
    item_domains = {table.item[row]: table.domain[row] for row in rows}
    domain_names, counts = np.unique([table.domain[row] for row in rows], return_counts=True)
    return Identities(
        IdTable.of(table.user[row] for row in [*rows, *([] if elsewhere is None else elsewhere.tolist())]),
        IdTable.of(item_domains),
        IdTable.of(table.domains),
        item_domains,
        str(domain_names[counts.argmax()]),
    )


def known_reviews(
    table: ReviewTable,
    tokens: TokenizedReviews,
    split: Split,
    config: ModelConfig,
    reader: TextReader | None,
    elsewhere: Rows | None = None,
) -> KnownReviews:
    """The reviews that predictions may read. ``reader``: None leaves out what texts say beyond ratings. ``elsewhere``:
    rows of other domains, which add to the users' ratings.
    """
    row_counts = tokens.row_counts(config.tokens_a_row)
    read = split.train if elsewhere is None else np.union1d(split.train, elsewhere)
    surpluses = None if reader is None else surpluses_of(reader, table, read)
    return KnownReviews(table, split.train, row_counts, config, elsewhere, surpluses)


def rows_encoded(split: Split, *, pretrained: bool, only_measured: bool) -> Rows:
    """Rows of the reviews whose states are cached: all of the split, which the service reads once it is deployed.

    A model that is only measured reads the training part alone. Without pre-training it caches the others, too: models
    of other splits share the plain backbone's states.
    """
    return split.train if pretrained and only_measured else split.rows


def states_precision(training: Precision, *, only_measured: bool) -> Precision:
    """For cached states: fp32 as in the service, or that of training for a model that is only measured."""
    return training if only_measured else "fp32"


def cached_states(
    directory: Path, encoder: ReviewEncoder, tokens: TokenizedReviews, tokenizer: ReviewTokenizer, precision: Precision
) -> StateBank:
    """The state bank of a frozen encoder, after encoding what it lacks. Banks of two precisions are never mixed."""
    digest = encoder_digest(encoder, tokenizer.serialized, tokenizer.max_length, projected=False)
    bfloat16 = uses_bfloat16(precision, encoder.bert.device)
    return fill_bank(directory, encoder, tokens, f"{digest}/bf16" if bfloat16 else digest, bfloat16=bfloat16)


def _initial_model(
    config: ModelConfig, identities: Identities, table: ReviewTable, split: Split, pretrained: PretrainedModel | None
) -> tuple[RatingModel, str]:
    """The model before its first step, and its tokenizer: from the plain backbone, or from pre-training."""
    if pretrained is None:
        backbone = load_backbone(config.backbone, config.encoder_layers)
        encoder = ReviewEncoder(backbone.bert, config.state_dim, config.tokens_a_row)
        tokenizer_json = backbone.tokenizer_json
    else:
        files = pretrained.files
        encoder = ReviewEncoder.from_config(files.bert_config, config.state_dim, config.tokens_a_row)
        tokenizer_json = files.tokenizer_json
    model = RatingModel(
        encoder,
        config,
        users=len(identities.users),
        items=len(identities.items),
        domains=len(identities.domains),
        mean_rating=float(table.rating[split.train].mean()),
    )
    if pretrained is not None:
        pretrained.initialise(model, identities)
    return model, tokenizer_json
