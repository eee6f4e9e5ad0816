"""Pre-training (Figure 2): masked opinion token prediction and opinion rating prediction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from ubert_model.atomic import write_text
from ubert_model.config import ModelConfig, require, require_choice
from ubert_model.ids import Identities, IdTable
from ubert_model.nn.input_layer import UNKNOWN
from ubert_model.nn.pretraining_model import PretrainingModel
from ubert_model.nn.review_encoder import ReviewEncoder
from ubert_model.tokenizer import ReviewTokenizer
from ubert_training.backbones import backbone_config, freeze_all_but_last, load_backbone, require_fit
from ubert_training.batches import Rows, shuffled_batches_of_like_size
from ubert_training.devices import DeviceChoice, make_accelerator
from ubert_training.loop import LoopOptions, decayed_groups, discard_checkpoint, require_machine, train
from ubert_training.model_files import save_model
from ubert_training.objectives import pretraining_loss
from ubert_training.pretraining.corpus_rows import Corpus, pretraining_rows
from ubert_training.pretraining.lexicon import Lexicon
from ubert_training.pretraining.masking import Masker, MaskingStrategy
from ubert_training.processes import own_share, put_together
from ubert_training.projection_start import start_projection
from ubert_training.reviews.table import ReviewTable
from ubert_training.splits import Split
from ubert_training.stage import Stage, digest_of
from ubert_training.tokens import TokenizedReviews

KIND = "pretrain"
CORPUS_READ = "corpus.txt"
"""The reviews that were read, a line each: no later split may evaluate on one of them."""

VALIDATION_SHARE = 0.05


PAPER_LOOP: Mapping[str, Any] = {"epochs": 3, "batch_size": 32, "learning_rate": 3e-5}
SMALL_LOOP: Mapping[str, Any] = {"epochs": 1, "batch_size": 32, "learning_rate": 1e-3}


def default_loop(preset: str) -> Mapping[str, Any]:
    """Length and rate of pre-training by preset: the paper's Adam at 3e-5, or one quick pass for a new head."""
    return PAPER_LOOP if preset == "paper" else SMALL_LOOP


def default_trainable_layers(preset: str) -> int | None:
    """How many of BERT's last layers pre-training changes by preset: all (None) in the paper."""
    return 2 if preset == "minilm" else None


@dataclass(frozen=True, kw_only=True)
class PretrainOptions:
    """What to pre-train on and with which objective. ``beta`` weighs task 2 (Eq. 9; the paper's is 3)."""

    corpus: Corpus = "both"
    fraction: float = 1.0
    masking: MaskingStrategy = "opinion"
    beta: float = 3.0
    encoder_learning_rate: float = 3e-5
    trainable_layers: int | None = None
    device: DeviceChoice = "auto"
    loop: LoopOptions = field(default_factory=lambda: LoopOptions(**SMALL_LOOP))

    def __post_init__(self) -> None:
        for name, kind in (("corpus", Corpus), ("masking", MaskingStrategy), ("device", DeviceChoice)):
            require_choice(name, getattr(self, name), kind)
        require(self.beta >= 0, "beta", self.beta, "use 0 (no task 2) or more")
        require(
            self.encoder_learning_rate > 0,
            "encoder_learning_rate",
            self.encoder_learning_rate,
            "use a positive step size",
        )
        tasks = self.masking != "none" or self.beta > 0
        require(tasks, "masking", self.masking, "keep at least one task: masking, or beta above 0")


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
    """Pre-train and leave the model in ``directory``. Finished before: nothing is done; killed before: it continues.

    Raises ``InputError`` or ``ConfigError`` on what cannot be trained, ``DeviceUnavailableError`` without the device.
    """
    rows = rows_read(table, split, options)
    stage = Stage(directory, KIND, pretraining_inputs(table, split, rows, config, lexicon, options))
    accelerator = make_accelerator(options.device)
    if not stage.is_finished():  # what is refused neither leaves a directory nor discards one
        require_pretrainable(config, options, accelerator)
    with stage.held(accelerator, force=force) as finished:
        if not finished:
            _train_and_keep(table, split, rows, config, lexicon, options, stage, accelerator)
        if accelerator.is_main_process:
            discard_checkpoint(directory)  # also one that a run left which was killed after it had finished
    return directory


def require_pretrainable(config: ModelConfig, options: PretrainOptions, accelerator: Accelerator) -> None:
    """Raises as :func:`pretrain` does for a model that its backbone, or this machine, cannot train."""
    bert = backbone_config(config.backbone, config.encoder_layers)
    require_fit(bert, "pretrain_max_length", config.pretrain_max_length, options.trainable_layers)
    require_machine(options.loop, accelerator)


def _train_and_keep(
    table: ReviewTable,
    split: Split,
    rows: NDArray[np.int64],
    config: ModelConfig,
    lexicon: Lexicon,
    options: PretrainOptions,
    stage: Stage,
    accelerator: Accelerator,
) -> None:
    """The work of :func:`pretrain` on the reviews at ``rows``, in the directory of its stage."""
    directory = stage.directory
    torch.manual_seed(options.loop.seed)
    backbone = load_backbone(config.backbone, config.encoder_layers)
    freeze_all_but_last(backbone.bert, options.trainable_layers)
    encoder = ReviewEncoder(backbone.bert, config.state_dim)
    # The target's own reviews train the encoder, under an unknown user. A user embedding that had read them would carry
    # the ratings of the very pairs that fine-tuning goes on to predict (law 5; measured in the README's Decisions).
    elsewhere = rows[~np.isin(rows, split.rows)]
    users = IdTable.of(table.user[row] for row in elsewhere.tolist())
    domains = IdTable.of(table.domains)
    identities = Identities(users, IdTable(()), domains, {}, domains.identifiers[0])
    mean_rating = float(table.rating[rows].mean())
    model = PretrainingModel(encoder, config, users=len(users), domains=len(domains), mean_rating=mean_rating)
    tokenizer = ReviewTokenizer(backbone.tokenizer_json, config.pretrain_max_length)
    masker = Masker(tokenizer, lexicon.words, options.masking)
    user_rows = np.where(np.isin(rows, split.rows), UNKNOWN, [identities.users.row(table.user[row]) for row in rows])
    task = PretrainingTask(model, table, rows, user_rows, identities, tokenizer, masker, options, accelerator)
    writers = [table.user[row] for row in rows.tolist()]
    start_projection(encoder, task.tokens, task.training_rows, writers, None, accelerator.device, options.loop.seed)
    position = train(task, options.loop, directory, accelerator, "pre-training", stage.fingerprint)
    if accelerator.is_main_process:
        save_model(directory, model, encoder, config, backbone.tokenizer_json, identities)
        write_text(directory / CORPUS_READ, "".join(f"{table.review_id[row]}\n" for row in rows.tolist()))
        stage.finish(
            {
                "reviews": len(rows),
                "users": len(users),
                "lexicon": lexicon.source,
                "opinion_words": len(task.maskable.spans),
                "best_epoch": position.best_epoch,
                "validation_losses": position.validation_losses,
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
    """All that determines a model that is pre-trained on the rows ``read``. Of the split only these and what the target
    is: splits that agree in both, such as folds of one target after pre-training in other domains, have one model.
    """
    target = np.sort(split.rows)
    return {
        **table.digests,
        "reviews": digest_of(table.review_id[row] for row in read.tolist()),
        "target": digest_of(table.review_id[row] for row in target.tolist()),
        "config": config,
        "options": options,
        "lexicon": lexicon.digest,
    }


def rows_read(table: ReviewTable, split: Split, options: PretrainOptions) -> NDArray[np.int64]:
    """Rows that pre-training with these options reads. Raises ``InputError`` if there are none."""
    return pretraining_rows(table, split, options.corpus, fraction=options.fraction, seed=options.loop.seed)


class PretrainingTask:
    """Eq. 9 over the rows of the corpus; a twentieth of them is held out to watch."""

    def __init__(
        self,
        model: PretrainingModel,
        table: ReviewTable,
        rows: NDArray[np.int64],
        user_rows: NDArray[np.int64],
        identities: Identities,
        tokenizer: ReviewTokenizer,
        masker: Masker,
        options: PretrainOptions,
        accelerator: Accelerator,
    ) -> None:
        self.model: nn.Module = model
        self.options = options
        self.accelerator = accelerator
        self.device = accelerator.device
        self.masker = masker
        texts = [table.text[row] for row in rows.tolist()]
        self.tokens = TokenizedReviews.of(texts, tokenizer)
        self.maskable = masker.maskable(texts)
        self.ratings = torch.from_numpy(table.rating[rows].astype(np.float32))
        self.users = torch.from_numpy(user_rows)
        self.domains = torch.tensor([identities.domains.row(table.domain[row]) for row in rows.tolist()])
        readable = np.flatnonzero(self.tokens.lengths > 0)
        order = np.random.default_rng([options.loop.seed, 11]).permutation(readable)
        held_out = max(1, round(VALIDATION_SHARE * len(order)))
        self.validation_rows, self.training_rows = np.sort(order[:held_out]), np.sort(order[held_out:])

    def parameter_groups(self, options: LoopOptions) -> list[dict[str, Any]]:
        """BERT at its own, small rate."""
        return decayed_groups(
            self.model,
            options.weight_decay,
            rates={"review_encoder.bert": self.options.encoder_learning_rate},
        )

    def batches(self, epoch: int) -> Sequence[Rows]:
        """Batches of like length."""
        loop, lengths = self.options.loop, self.tokens.lengths[:, None]
        return shuffled_batches_of_like_size(self.training_rows, lengths, loop.batch_size, loop.seed, epoch)

    def loss(self, model: nn.Module, rows: Rows, epoch: int) -> Tensor:
        """Eq. 9; a review's mask follows from (seed, epoch)."""
        return self._loss(model, rows, [self.options.loop.seed, 13, epoch])

    def validation_losses(self) -> NDArray[np.float64]:
        """Eq. 9 over the held-out reviews, under the same masks every time; a batch's mean stands for each of it."""
        batches = list(self.tokens.length_buckets(self.validation_rows, token_budget=4096))
        losses = np.zeros(len(self.validation_rows))
        for rows in own_share(self.accelerator, batches):
            losses[np.searchsorted(self.validation_rows, rows)] = self._loss(self.model, rows, [17]).item()
        return put_together(self.accelerator, losses)

    def _loss(self, model: nn.Module, rows: Rows, seed: list[int]) -> Tensor:
        """Eq. 9; what is hidden of a review follows from the seed and its row, whatever stands beside it."""
        token_ids, token_mask = self.tokens.padded(rows)
        predicted_mask = torch.zeros_like(token_mask)
        shown = token_ids.clone()
        lengths = token_mask.sum(dim=1).tolist()
        for index, (row, length) in enumerate(zip(rows.tolist(), lengths, strict=True)):
            rng = np.random.default_rng([*seed, row])
            visible, predicted = self.masker.mask(token_ids[index, :length].numpy(), self.maskable[row], rng)
            shown[index, :length] = torch.from_numpy(visible)
            predicted_mask[index, :length] = torch.from_numpy(predicted)
        output = model(
            self.users[rows].to(self.device),
            self.domains[rows].to(self.device),
            shown.to(self.device),
            token_mask.to(self.device),
            predicted_mask.to(self.device),
        )
        return pretraining_loss(
            token_logits=output.token_logits,
            token_targets=token_ids[predicted_mask].to(self.device),
            token_reviews=predicted_mask.nonzero()[:, 0].to(self.device),
            predicted=output.rating,
            ratings=self.ratings[rows].to(self.device),
            beta=self.options.beta,
        )
