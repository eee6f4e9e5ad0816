"""Fine-tuning (Figure 3): rating prediction on the target domain, end to end or over cached states."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from ubert_model.config import ModelConfig, require_choice
from ubert_model.ids import Identities, IdTable
from ubert_model.nn.input_layer import UNKNOWN
from ubert_model.nn.rating_model import RatingModel
from ubert_model.nn.review_encoder import ReviewEncoder
from ubert_model.rating import BiasModel, blend
from ubert_model.tokenizer import ReviewTokenizer
from ubert_training.atomic import write_text
from ubert_training.backbones import freeze_all_but_last, load_backbone
from ubert_training.bias_fit import bias_ratings, fit_bias_model
from ubert_training.devices import DeviceChoice, make_accelerator
from ubert_training.histories import Histories, KnownReviews
from ubert_training.loop import LoopOptions, Position, Rows, decayed_groups, discard_checkpoint, shuffled_batches, train
from ubert_training.model_files import ModelFiles, load_model, save_model, weights_below
from ubert_training.objectives import rating_loss
from ubert_training.pair_batches import PairBatch, PairSource
from ubert_training.pretrain import KIND as PRETRAIN
from ubert_training.reviews.table import ReviewTable
from ubert_training.splits import PARTS, Split
from ubert_training.stage import Stage, digest_of, finished_stage
from ubert_training.state_bank import StateBank, encoder_digest, fill_bank
from ubert_training.tokens import TokenizedReviews

KIND = "finetune"
SPLIT = "split.parquet"
RATING = "rating.json"
EVALUATION_BATCH = 64
RIDGE_STRENGTHS = tuple(np.logspace(2, 7, 16))

Mode = Literal["cached", "end-to-end"]


ID_EMBEDDINGS = ("model.user_query.embedding", "model.item_query.embedding")
SHRUNK_ID_RATE = 0.01
"""Share of the learning rate for ``id_embeddings="shrunk"``: what pre-training gave them changes slowly."""

CACHED_LOOP: Mapping[str, Any] = {
    "epochs": 10,
    "batch_size": 64,
    "learning_rate": 2e-4,
    "patience": 3,
    "least_improvement": 1.0,
}
END_TO_END_LOOP: Mapping[str, Any] = {"epochs": 5, "batch_size": 8, "learning_rate": 3e-5, "patience": 2}


def default_loop(mode: str) -> Mapping[str, Any]:
    """Length and rate of fine-tuning by mode: a fresh head over cached states, or the paper's Adam at 3e-5."""
    return CACHED_LOOP if mode == "cached" else END_TO_END_LOOP


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions:
    """How to fine-tune.

    ``cached``: the review encoder is frozen, its states are computed once, and only what stands above it trains.
    ``end-to-end``: everything trains, the last ``trainable_layers`` of BERT (None: all) at their own rate.
    """

    mode: Mode = "cached"
    encoder_learning_rate: float = 3e-5
    trainable_layers: int | None = None
    device: DeviceChoice = "auto"
    loop: LoopOptions = field(default_factory=lambda: LoopOptions(**CACHED_LOOP))

    def __post_init__(self) -> None:
        for name, kind in (("mode", Mode), ("device", DeviceChoice)):
            require_choice(name, getattr(self, name), kind)


@dataclass(frozen=True, kw_only=True)
class RatingParts:
    """What turns network outputs into ratings: fitted on training (bias) and on validation (blend weight)."""

    bias: BiasModel
    blend_weight: float

    def save(self, directory: Path) -> None:
        content = {"bias": self.bias.to_json(), "blend_weight": self.blend_weight}
        write_text(directory / RATING, json.dumps(content, indent=2) + "\n")

    @classmethod
    def load(cls, directory: Path) -> "RatingParts":
        content = json.loads((directory / RATING).read_text(encoding="utf-8"))
        return cls(bias=BiasModel.from_json(content["bias"]), blend_weight=content["blend_weight"])


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
    inputs = {
        "table": table.fingerprint,
        "split": {part: digest_of(table.review_id[row] for row in getattr(split, part)) for part in PARTS},
        "config": config,
        "options": options,
        "pretrained": finished_stage(pretrained, PRETRAIN)["fingerprint"] if pretrained else None,
    }
    stage = Stage(directory, KIND, inputs)
    if stage.open(force=force):
        return directory
    torch.manual_seed(options.loop.seed)
    identities = target_identities(table, split)
    model, tokenizer_json = _initial_model(config, identities, table, split, pretrained)
    tokenizer = ReviewTokenizer(tokenizer_json, config.max_length)
    tokens = TokenizedReviews.of(table.text, tokenizer)
    accelerator = make_accelerator(options.device)
    freeze_all_but_last(model.review_encoder.bert, 0 if options.mode == "cached" else options.trainable_layers)
    bank = None
    if options.mode == "cached":
        with accelerator.main_process_first():
            bank = cached_states(states, model, tokens, tokenizer, accelerator.device)
    source = PairSource(table=table, identities=identities, tokens=tokens, bank=bank)
    known = KnownReviews(table, split.train, tokens.lengths, config)
    task = FinetuningTask(model, source, known, split, options, accelerator.device)
    model.to(accelerator.device)
    if task.starts_solved:
        solve_prediction_layer(task)
    position = train(task, options.loop, directory, accelerator, "fine-tuning", stage.fingerprint)
    parts = task.rating_parts(position)
    if accelerator.is_main_process:
        save_model(directory, model, model.review_encoder, config, tokenizer_json, identities)
        parts.save(directory)
        split.save(directory / SPLIT, table)
        stage.finish(
            {
                "pairs": len(split.train),
                "best_epoch": position.best_epoch,
                "validation_losses": position.validation_losses,
                "blend_weight": parts.blend_weight,
            }
        )
        discard_checkpoint(directory)
    accelerator.wait_for_everyone()
    return directory


def target_identities(table: ReviewTable, split: Split) -> Identities:
    """The users and items of the training part, and every domain of the table."""
    rows = split.train.tolist()
    item_domains = {table.item[row]: table.domain[row] for row in rows}
    domain_names, counts = np.unique([table.domain[row] for row in rows], return_counts=True)
    return Identities(
        IdTable.of(table.user[row] for row in rows),
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


class FineTuning(nn.Module):
    """The rating model over a batch of pairs: encodes or takes cached states, projects, lines them up, predicts."""

    def __init__(self, model: RatingModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: PairBatch) -> Tensor:
        """Network output of each pair, (B,)."""
        encoder = self.model.review_encoder
        states = batch.states
        if states is None:
            assert batch.token_ids is not None
            assert batch.token_mask is not None
            states = encoder.encode(batch.token_ids, batch.token_mask)[batch.token_mask]  # (T, d)
        bank = encoder.project(states)  # (T, D)
        if not len(bank):
            bank = bank.new_zeros((1, encoder.dim))  # no review at all: the masked column points here
        user, item = batch.user_side, batch.item_side
        return self.model(  # type: ignore[no-any-return]
            batch.user,
            batch.item,
            batch.domain,
            bank[user.token_index],
            user.offsets,
            user.mask,
            bank[item.token_index],
            item.offsets,
            item.mask,
        )


class FinetuningTask:
    """Eq. 15 over the training pairs; early stopping on the blended rating's error on validation."""

    def __init__(
        self,
        model: RatingModel,
        source: PairSource,
        known: KnownReviews,
        split: Split,
        options: FinetuneOptions,
        device: torch.device,
    ) -> None:
        self.model: nn.Module = FineTuning(model)
        self.rating_model = model
        self.config = model.config
        self.starts_solved = model.config.rating_base != "none"
        self.source = source
        self.options = options
        self.device = device
        ratings = source.table.rating.astype(np.float64)
        self.training = known.histories(split.train)
        self.validation = known.histories(split.validation)
        self.bias = fit_bias_model(self.training, ratings[split.train])
        self.validation_ratings = ratings[split.validation]
        above_bias = self.config.rating_base != "none"
        base = bias_ratings(self.bias, self.training) if above_bias else np.zeros(len(self.training))
        self.targets = torch.from_numpy((ratings[split.train] - base).astype(np.float32))
        self.readable = np.flatnonzero(self.training.has_both_sides)

    def parameter_groups(self, options: LoopOptions) -> list[dict[str, Any]]:
        """The encoder at its own, small rate; id embeddings at theirs, where they are to stay near their start."""
        rates = {"model.review_encoder.bert": self.options.encoder_learning_rate}
        if self.config.id_embeddings == "shrunk":
            rates |= dict.fromkeys(ID_EMBEDDINGS, SHRUNK_ID_RATE * options.learning_rate)
        return decayed_groups(self.model, options.weight_decay, rates)

    def batches(self, epoch: int) -> Sequence[Rows]:
        """Training pairs that have text on both sides; the others are the bias model's."""
        loop = self.options.loop
        return shuffled_batches(self.readable, loop.batch_size, loop.seed, epoch)

    def loss(self, model: nn.Module, rows: Rows, epoch: int, step: int) -> Tensor:  # noqa: ARG002
        """Squared error of the rating, or of what is left above the bias model."""
        batch = self.source.batch(self.training, rows).to(self.device)
        return rating_loss(model(batch), self.targets[rows].to(self.device))

    def validation_losses(self) -> NDArray[np.float64]:
        """Squared error of the blended rating of each validation pair, in stars²."""
        outputs = network_outputs(self.model, self.source, self.validation, self.device)
        parts = RatingParts(bias=self.bias, blend_weight=self._blend_weight(outputs))
        predicted = final_ratings(self.config, parts, self.validation, outputs)
        return np.square(predicted - self.validation_ratings)

    def rating_parts(self, position: Position) -> RatingParts:
        """The bias model, and the blend weight of the model as it is now.

        The ridge solution that training started from is taken whole where no epoch was better: leave-one-out over
        the training pairs has fitted its size more closely than the few validation pairs could.
        """
        if position.best_epoch == -1 and self.starts_solved:
            return RatingParts(bias=self.bias, blend_weight=1.0)
        outputs = network_outputs(self.model, self.source, self.validation, self.device)
        return RatingParts(bias=self.bias, blend_weight=self._blend_weight(outputs))

    def _blend_weight(self, outputs: NDArray[np.float64]) -> float:
        """The network's share, by validation. Without a bias beneath it the network is the paper's, not blended."""
        if self.config.rating_base == "none":
            return 1.0
        readable = self.validation.has_both_sides
        left = self.validation_ratings - bias_ratings(self.bias, self.validation)
        return blend_share(outputs[readable], left[readable])


def blend_share(outputs: NDArray[np.float64], left: NDArray[np.float64]) -> float:
    """The network's share in a rating, from 0 to 1, as far as pairs that it was not trained on support it.

    The least-squares share w has a standard error s; it is shrunk by the factor 1 − s²/w² (James and Stein), to 0
    where it is within s of 0: a share that only fits noise costs accuracy.

    Shape:
        outputs: what the network adds; left: what the bias model leaves; (P,) in stars.
    """
    energy = float(outputs @ outputs)
    if energy == 0:
        return 0.0
    share = float(outputs @ left) / energy
    noise = float(np.square(left - share * outputs).mean()) / energy  # s²
    return float(np.clip(share - noise / share, 0.0, 1.0)) if share > 0 else 0.0


def solve_prediction_layer(task: FinetuningTask) -> None:
    """Start the prediction layer at the ridge regression over û and î; co-matching starts silent.

    With few pairs this is most of what can be learned: its strength is chosen by leave-one-out over the training
    pairs, where gradient steps from a random layer would spend the same pairs on noise first. û and î come from
    pre-training; the co-matching layer does not, and has nothing to say before its first step.
    """
    layer = task.rating_model.head.prediction_layer
    inputs = np.zeros((len(task.training), layer.output.in_features))
    joined: list[Tensor] = []
    handle = layer.output.register_forward_pre_hook(lambda _, arguments: joined.append(arguments[0].double().cpu()))
    task.model.eval()
    with handle, torch.inference_mode():
        for index, batch in task.source.batches(task.training, EVALUATION_BATCH):
            task.model(batch.to(task.device))
            inputs[index] = joined.pop().numpy()
    rows = task.readable
    dim = layer.output.in_features // 4
    heard = np.r_[0:dim, 2 * dim : 3 * dim]  # û and î of [û; tᵘ; î; tⁱ]
    inputs = inputs[:, heard]
    scaler = StandardScaler().fit(inputs[rows])
    ridge = RidgeCV(alphas=RIDGE_STRENGTHS).fit(scaler.transform(inputs[rows]), task.targets.numpy()[rows])
    weight = ridge.coef_ / scaler.scale_
    with torch.no_grad():
        layer.output.weight.zero_()
        layer.output.weight[0, heard] = torch.from_numpy(weight).float()
        layer.output.bias.fill_(float(ridge.intercept_ - weight @ scaler.mean_))


def network_outputs(
    model: nn.Module, source: PairSource, histories: Histories, device: torch.device
) -> NDArray[np.float64]:
    """Network output of each pair, (P,), in evaluation mode and fp32. Pairs without text on a side count as 0."""
    model.eval()
    outputs = np.zeros(len(histories))
    readable = histories.has_both_sides
    with torch.inference_mode():
        for index, batch in source.batches(histories, EVALUATION_BATCH):
            outputs[index] = model(batch.to(device)).double().cpu().numpy()
    outputs[~readable] = 0.0
    return outputs


def final_ratings(
    config: ModelConfig, parts: RatingParts, histories: Histories, outputs: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Ratings in stars, (P,): the blend where both sides have text, else the bias model alone."""
    bias = parts.bias.rate(histories.user_count, histories.user_total, histories.item_count, histories.item_total)
    above_bias = config.rating_base != "none"
    network = np.where(histories.has_both_sides, outputs, 0.0 if above_bias else bias)
    return blend(bias, network, weight=parts.blend_weight, above_bias=above_bias, scale=config.scale)


def _initial_model(
    config: ModelConfig, identities: Identities, table: ReviewTable, split: Split, pretrained: Path | None
) -> tuple[RatingModel, str]:
    """The model before its first step: the plain backbone, or all that pre-training learned."""
    found = load_model(pretrained, PRETRAIN) if pretrained else None
    if found is None:
        backbone = load_backbone(config.backbone)
        encoder, tokenizer_json = ReviewEncoder(backbone.bert, config.state_dim), backbone.tokenizer_json
    else:
        encoder, tokenizer_json = found.build_encoder(), found.tokenizer_json
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
        rows = [found.identities.users.row(name) for name in identities.users.identifiers]
        rows = rows if model.user_query.uses_ids else []
        model.user_query.embedding.weight.copy_(known[[UNKNOWN, *rows]])
        model.item_query.embedding.weight.copy_(known[UNKNOWN].expand_as(model.item_query.embedding.weight))
