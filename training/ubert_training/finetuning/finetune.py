"""Fine-tuning (Figure 3): rating prediction on the target domain, end to end or over cached states."""

from collections.abc import Set
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from transformers import BertConfig

from ubert_model.config import ModelConfig, require
from ubert_model.errors import InputError
from ubert_model.ids import Identities, IdTable
from ubert_model.nn.input_layer import UNKNOWN
from ubert_model.nn.rating_model import RatingModel
from ubert_model.nn.review_encoder import ReviewEncoder
from ubert_model.tokenizer import ReviewTokenizer
from ubert_training.backbones import backbone_config, freeze_all_but_last, load_backbone, require_fit
from ubert_training.devices import make_accelerator
from ubert_training.finetuning.finetune_options import FinetuneOptions
from ubert_training.finetuning.finetuning_task import FinetuningTask, solve_prediction_layer
from ubert_training.finetuning.histories import KnownReviews, Rows
from ubert_training.finetuning.pair_batches import PairSource
from ubert_training.loop import discard_checkpoint, require_machine, train
from ubert_training.model_files import ModelFiles, load_model, save_model, weights_below
from ubert_training.pretraining.corpus_rows import withheld
from ubert_training.pretraining.pretrain import CORPUS_READ
from ubert_training.pretraining.pretrain import KIND as PRETRAIN
from ubert_training.projection_start import start_projection
from ubert_training.reviews.table import ReviewTable
from ubert_training.splits import Split
from ubert_training.stage import Stage, finished_stage
from ubert_training.states.codebooks import codebooks_of, save_codebooks
from ubert_training.states.state_bank import StateBank, encoder_digest, fill_bank
from ubert_training.tokens import TokenizedReviews

KIND = "finetune"
SPLIT = "split.parquet"


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
) -> Path:
    """Fine-tune and leave the model in ``directory``; ``states`` is where cached states lie.

    Without ``pretrained`` the encoder is the plain backbone (the paper's U-BERT P−). Finished before: nothing is
    done; killed before: it continues. Raises ``InputError``, ``ConfigError`` or ``DeviceUnavailableError``.
    """
    read = reviews_read(pretrained) if pretrained is not None else frozenset()
    bert = None if pretrained is None else _checked_pretrained(pretrained, read, table, split, config).bert_config
    inputs = {
        **table.digests,
        "split": split.digests(table),
        "config": config,
        "options": options,
        "pretrained": finished_stage(pretrained, PRETRAIN)["fingerprint"] if pretrained else None,
    }
    stage = Stage(directory, KIND, inputs)
    accelerator = make_accelerator(options.device)
    if not stage.is_finished():  # what is refused neither leaves a directory nor discards one
        require_finetunable(config, options, accelerator, bert)
    with stage.held(accelerator, force=force) as finished:
        if not finished:
            _train_and_keep(table, split, config, options, pretrained, read, states, stage, accelerator)
        if accelerator.is_main_process:
            discard_checkpoint(directory)  # also one that a run left which was killed after it had finished
    return directory


def require_finetunable(
    config: ModelConfig, options: FinetuneOptions, accelerator: Accelerator, bert: BertConfig | None = None
) -> None:
    """Raises as :func:`finetune` does for what ``bert`` (None: the backbone), or this machine, cannot train."""
    bert = bert or backbone_config(config.backbone, config.encoder_layers)
    require_fit(bert, "max_length", config.max_length, options.trainable_layers)
    require_machine(options.loop, accelerator)


def _train_and_keep(
    table: ReviewTable,
    split: Split,
    config: ModelConfig,
    options: FinetuneOptions,
    pretrained: Path | None,
    read: Set[str],
    states: Path,
    stage: Stage,
    accelerator: Accelerator,
) -> None:
    """The work of :func:`finetune`, in the directory of its stage."""
    directory = stage.directory
    torch.manual_seed(options.loop.seed)
    elsewhere = rows_elsewhere(table, split, read)
    identities = target_identities(table, split, elsewhere)
    model, tokenizer_json = _initial_model(config, identities, table, split, pretrained)
    tokenizer = ReviewTokenizer(tokenizer_json, config.max_length)
    tokens = TokenizedReviews.of(table.texts_at(split.rows), tokenizer)
    freeze_all_but_last(model.review_encoder.bert, 0 if options.mode == "cached" else options.trainable_layers)
    bank = None
    if options.mode == "cached":
        with accelerator.main_process_first():
            bank = cached_states(states, model, tokens, tokenizer, accelerator.device)
    # After pre-training, too: what that leaves tells apart what its tasks ask for, not what pairs are aligned by.
    start_projection(model.review_encoder, tokens, split.train, table.user, bank, accelerator.device, options.loop.seed)
    source = PairSource(table=table, identities=identities, tokens=tokens, bank=bank, tokens_a_row=config.tokens_a_row)
    known = KnownReviews(table, split.train, tokens.row_counts(config.tokens_a_row), config, elsewhere)
    task = FinetuningTask(model, source, known, split, options, accelerator)
    model.to(accelerator.device)
    if config.above_bias:
        solve_prediction_layer(task)
    position = train(task, options.loop, directory, accelerator, "fine-tuning", stage.fingerprint)
    parts = task.rating_parts(position)
    if accelerator.is_main_process:
        save_model(directory, model, model.review_encoder, config, tokenizer_json, identities)
        parts.save(directory)
        encoder = model.review_encoder
        save_codebooks(
            codebooks_of(encoder, tokens, split.train, bank, accelerator.device, options.loop.seed), directory
        )
        split.save(directory / SPLIT, table)
        stage.finish(
            {
                "pairs": len(split.train),
                "best_epoch": position.best_epoch,
                "validation_losses": position.validation_losses,
                "blend_weight": parts.blend_weight,
            }
        )


def reviews_read(pretrained: Path) -> frozenset[str]:
    """Ids of the reviews that a pre-trained model has read. Raises ``InputError`` if it does not say."""
    try:
        return frozenset((pretrained / CORPUS_READ).read_text(encoding="utf-8").split())
    except FileNotFoundError as error:
        raise InputError(f"{pretrained} does not say which reviews it has read; pre-train again") from error


def rows_elsewhere(table: ReviewTable, split: Split, read: Set[str]) -> Rows:
    """Rows of the reviews that pre-training has read and that are not of the target domain; none that is withheld."""
    elsewhere = ~withheld(table, split)
    elsewhere[split.rows] = False
    return np.array([row for row in np.flatnonzero(elsewhere).tolist() if table.review_id[row] in read], dtype=np.int64)


def target_identities(table: ReviewTable, split: Split, elsewhere: Rows | None = None) -> Identities:
    """The users and items of the training part, and every domain of the table.

    ``elsewhere``: rows of other domains, whose users are known as well.
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


def cached_states(
    directory: Path, model: RatingModel, tokens: TokenizedReviews, tokenizer: ReviewTokenizer, device: torch.device
) -> StateBank:
    """The bank of the model's frozen encoder, filled where it is not already."""
    encoder = model.review_encoder.to(device).eval()
    digest = encoder_digest(encoder, tokenizer.serialized, tokenizer.max_length, projected=False)
    return fill_bank(directory, encoder, tokens, digest, device)


def _initial_model(
    config: ModelConfig, identities: Identities, table: ReviewTable, split: Split, pretrained: Path | None
) -> tuple[RatingModel, str]:
    """The model before its first step: the plain backbone, or all that pre-training learned."""
    found = load_model(pretrained, PRETRAIN) if pretrained else None
    if found is None:
        backbone = load_backbone(config.backbone, config.encoder_layers)
        encoder = ReviewEncoder(backbone.bert, config.state_dim, config.tokens_a_row)
        tokenizer_json = backbone.tokenizer_json
    else:
        encoder, tokenizer_json = found.build_encoder(config.tokens_a_row), found.tokenizer_json
    model = RatingModel(
        encoder,
        config,
        users=len(identities.users),
        items=len(identities.items),
        domains=len(identities.domains),
        mean_rating=float(table.rating[split.train].mean()),
    )
    if found is not None:
        _inherit(model, found, identities)
    return model, tokenizer_json


def _checked_pretrained(
    pretrained: Path, read: Set[str], table: ReviewTable, split: Split, config: ModelConfig
) -> ModelFiles:
    """Refuse a pre-trained model that has read what the split withholds (law 5), or of another encoder."""
    found = load_model(pretrained, PRETRAIN)
    for name in ("backbone", "encoder_layers", "state_dim"):
        asked, trained = getattr(config, name), getattr(found.config, name)
        require(asked == trained, name, asked, f"{pretrained} was pre-trained with {trained!r}; leave the flag out")
    kept_back = np.flatnonzero(withheld(table, split)).tolist()
    leaked = sum(table.review_id[row] in read for row in kept_back)
    if leaked:
        newer = ", or what is newer than its training part" if split.kind == "time" else ""
        raise InputError(
            f"{pretrained} has read {leaked} of the {len(kept_back)} reviews that this split withholds: those it "
            f"validates and tests on, and other reviews of its pairs{newer}; pre-train with the same split"
        )
    return found


def _inherit(model: RatingModel, found: ModelFiles, identities: Identities) -> None:
    """Take over the user encoder, the domains, and each user's embedding, by name; a new user starts as unknown.

    The item encoder, of the same structure, starts from the same weights: what reads an opinion out of a review reads
    it for the item as well.
    """
    for encoder, query in ((model.head.user_encoder, model.user_query), (model.head.item_encoder, model.item_query)):
        encoder.load_state_dict(weights_below(found.weights, "user_encoder"))
        query.norm.load_state_dict(weights_below(found.weights, "user_query.norm"))
    known = found.weights["user_query.embedding.weight"]
    domains = found.weights["domain_embedding.weight"]
    with torch.no_grad():
        rows = [found.identities.domains.row(name) for name in identities.domains.identifiers]
        model.domain_embedding.weight.copy_(domains[[UNKNOWN, *rows]])
        # A model that was pre-trained without identities has but the row of the unknown.
        learned = found.identities.users if found.config.id_embeddings != "none" else IdTable(())
        rows = [learned.row(name) for name in identities.users.identifiers] if model.user_query.uses_ids else []
        model.user_query.embedding.weight.copy_(known[[UNKNOWN, *rows]])
        model.item_query.embedding.weight.copy_(known[UNKNOWN].expand_as(model.item_query.embedding.weight))
