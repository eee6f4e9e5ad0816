"""The model files that a training stage leaves for the next: weights, architecture, tokenizer, identities."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import BertConfig

from ubert_model.bundle import ENCODER_CONFIG, IDENTITIES, TOKENIZER, WEIGHTS
from ubert_model.config import ModelConfig
from ubert_model.errors import InputError
from ubert_model.ids import Identities
from ubert_model.nn.rating_model import RatingModel
from ubert_model.nn.review_encoder import ReviewEncoder
from ubert_model.running.atomic import write_text
from ubert_model.tokenizer import ReviewTokenizer
from ubert_training.running.stage import finished_stage, refusing_damage
from ubert_training.weights.saving import save_weights, weights_of

CONFIG = "config.json"


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """A trained model in a stage's directory. Its weights are only read by :meth:`load_weights`."""

    directory: Path
    config: ModelConfig
    bert_config: BertConfig
    tokenizer_json: str
    identities: Identities

    def load_weights(self) -> dict[str, Tensor]:
        """All weights by name. Raises ``InputError`` for a damaged file."""
        path = self.directory / WEIGHTS
        try:
            return load_file(path)
        except SafetensorError as error:
            raise InputError(f"{path} cannot be read ({error}); run its step again with a new directory") from error

    def tokenizer(self) -> ReviewTokenizer:
        """The tokenizer of fine-tuning and of every later step."""
        return ReviewTokenizer(self.tokenizer_json, self.config.max_length)

    def build_rating_model(self) -> RatingModel:
        """The fine-tuned model, in evaluation mode. Raises ``InputError`` for weights of another version."""
        model = RatingModel(
            ReviewEncoder.from_config(self.bert_config, self.config.state_dim, self.config.tokens_a_row),
            self.config,
            users=len(self.identities.users),
            items=len(self.identities.items),
            domains=len(self.identities.domains),
            mean_rating=0.0,
        )
        with self.loading_weights():
            model.load_state_dict(self.load_weights())
        return model.eval()

    @contextmanager
    def loading_weights(self) -> Iterator[None]:
        """While weights are loaded into a model: raises ``InputError`` if they are those of another version."""
        try:
            yield
        except (KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"the weights of {self.directory} do not fit this version's model ({reason}); run its step again with "
                "a new directory"
            ) from error


def save_model(
    directory: Path, model: nn.Module, encoder: ReviewEncoder, config: ModelConfig, tokenizer_json: str, ids: Identities
) -> None:
    """Write a model's files; each appears complete or not at all."""
    save_weights(weights_of(model), directory / WEIGHTS)
    write_text(directory / ENCODER_CONFIG, encoder.bert.config.to_json_string())
    write_text(directory / TOKENIZER, tokenizer_json)
    write_text(directory / IDENTITIES, json.dumps(ids.to_json()))
    write_text(directory / CONFIG, json.dumps(config.to_json(), indent=2))


def load_model(directory: Path, kind: str) -> ModelFiles:
    """Open the model of a finished stage. Raises ``InputError`` if it is unfinished, of another kind or damaged."""
    finished_stage(directory, kind)
    with refusing_damage(directory / CONFIG):
        config = ModelConfig.from_json(json.loads((directory / CONFIG).read_text(encoding="utf-8")))
    with refusing_damage(directory / ENCODER_CONFIG):
        bert_config = BertConfig.from_json_file(str(directory / ENCODER_CONFIG))
    with refusing_damage(directory / IDENTITIES):
        identities = Identities.from_json(json.loads((directory / IDENTITIES).read_text(encoding="utf-8")))
    return ModelFiles(
        directory=directory,
        config=config,
        bert_config=bert_config,
        tokenizer_json=(directory / TOKENIZER).read_text(encoding="utf-8"),
        identities=identities,
    )
