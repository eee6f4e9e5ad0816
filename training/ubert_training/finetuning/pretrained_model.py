"""What fine-tuning takes over from a pre-trained model, after a check that it has read nothing held out (law 5)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch

from ubert_model.config import ModelConfig
from ubert_model.errors import InputError
from ubert_model.ids import Identities, IdTable
from ubert_model.nn.input_layer import UNKNOWN
from ubert_model.nn.rating_model import RatingModel
from ubert_model.validation import require
from ubert_training.pretraining.corpus_rows import withheld
from ubert_training.pretraining.pretrain import CORPUS_READ, KIND
from ubert_training.reviews.table import ReviewTable
from ubert_training.running.stage import finished_stage
from ubert_training.splits import Split
from ubert_training.weights.model_files import ModelFiles, load_model
from ubert_training.weights.saving import submodule_weights


@dataclass(frozen=True, kw_only=True)
class PretrainedModel:
    """A finished pre-training: its files, its fingerprint, its table's, and the ids of the reviews that it has read."""

    directory: Path
    fingerprint: str
    table: str
    files: ModelFiles
    reviews_read: frozenset[str]

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Raises ``InputError`` for an unfinished one, or one without a record of what it has read."""
        stage = finished_stage(directory, KIND)
        try:
            read = frozenset((directory / CORPUS_READ).read_text(encoding="utf-8").split())
        except FileNotFoundError as error:
            raise InputError(f"{directory} holds no {CORPUS_READ}, the reviews it has read; pre-train again") from error
        return cls(
            directory=directory,
            fingerprint=stage["fingerprint"],
            table=stage["inputs"]["table"],
            files=load_model(directory, KIND),
            reviews_read=read,
        )

    def require_compatible(self, table: ReviewTable, split: Split, config: ModelConfig) -> None:
        """Raise ``ConfigError`` for another encoder than the configuration's, ``InputError`` if it has read what the
        split withholds, or other reviews than the table's: an id changes with the text, so that ids would not tell.
        """
        for name in ("backbone", "encoder_layers", "state_dim"):
            asked, trained = getattr(config, name), getattr(self.files.config, name)
            remedy = f"{self.directory} was pre-trained with {trained!r}; leave the flag out"
            require(asked == trained, name, asked, remedy)
        if self.table != table.fingerprint:
            raise InputError(
                f"{self.directory} was pre-trained on another review table, and may have read there what this split "
                "withholds; pre-train on these reviews, with the same split"
            )
        held_out = np.flatnonzero(withheld(table, split)).tolist()
        leaked = sum(table.review_id[row] in self.reviews_read for row in held_out)
        if leaked:
            newer = ", or what is newer than its training part" if split.kind == "time" else ""
            raise InputError(
                f"{self.directory} has read {leaked} of the {len(held_out)} reviews that this split withholds: those "
                f"it validates and tests on, and other reviews of its pairs{newer}; pre-train with the same split"
            )

    def initialise(self, model: RatingModel, identities: Identities) -> None:
        """Copy the review encoder, the user encoder, and the embeddings of domains and users, by name; a new user
        starts as unknown.

        The item encoder, of the same structure, starts from the user encoder's weights, too: it extracts opinions from
        reviews just as well.
        """
        weights, pretrained = self.files.load_weights(), self.files.identities
        with self.files.loading_weights(), torch.no_grad():
            model.review_encoder.load_state_dict(submodule_weights(weights, "review_encoder"))
            head = model.head
            for encoder, query in ((head.user_encoder, model.user_query), (head.item_encoder, model.item_query)):
                encoder.load_state_dict(submodule_weights(weights, "user_encoder"))
                query.norm.load_state_dict(submodule_weights(weights, "user_query.norm"))
            known = weights["user_query.embedding.weight"]
            domains = weights["domain_embedding.weight"]
            rows = [pretrained.domains.row(name) for name in identities.domains.identifiers]
            model.domain_embedding.weight.copy_(domains[[UNKNOWN, *rows]])
            # A model that was pre-trained without identities has only the row of the unknown user.
            learned = pretrained.users if self.files.config.id_embeddings != "none" else IdTable(())
            rows = [learned.row(name) for name in identities.users.identifiers] if model.user_query.uses_ids else []
            model.user_query.embedding.weight.copy_(known[[UNKNOWN, *rows]])
            model.item_query.embedding.weight.copy_(known[UNKNOWN].expand_as(model.item_query.embedding.weight))
