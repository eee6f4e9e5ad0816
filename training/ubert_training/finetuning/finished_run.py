"""A finished fine-tuning run, opened to rate pairs of its table."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from accelerate import Accelerator

from ubert_model.errors import InputError
from ubert_model.nn.rating_model import RatingModel
from ubert_model.rating import Floats
from ubert_model.rating.text_reader import TextReader
from ubert_training.finetuning.bias_fit import fit_bias_model
from ubert_training.finetuning.finetune import (
    ELSEWHERE,
    KIND,
    SPLIT,
    cached_states,
    known_reviews,
    rows_encoded,
    states_precision,
)
from ubert_training.finetuning.histories import Histories, KnownReviews
from ubert_training.finetuning.pair_batches import PairSource
from ubert_training.finetuning.rating_parts import RatingParts
from ubert_training.finetuning.reader_fit import load_text_reader
from ubert_training.reviews.table import ReviewTable, Rows
from ubert_training.running.devices import DeviceChoice, make_accelerator
from ubert_training.running.stage import finished_stage
from ubert_training.splits import Split
from ubert_training.states.review_states import ReviewStates
from ubert_training.states.state_bank import StateBank
from ubert_training.states.tokens import TokenizedReviews
from ubert_training.weights.model_files import ModelFiles, load_model


@dataclass(frozen=True, kw_only=True, eq=False)
class FinishedRun:
    """What ``finetune`` left, with the cached states of its encoder."""

    directory: Path
    table: ReviewTable
    files: ModelFiles
    split: Split
    parts: RatingParts
    reader: TextReader
    tokens: TokenizedReviews
    model: RatingModel
    bank: StateBank
    accelerator: Accelerator

    @classmethod
    def open(cls, table: ReviewTable, directory: Path, *, states: Path, device: DeviceChoice = "auto") -> "FinishedRun":
        """Load a run, and encode the states that ``states`` lacks.

        Raises ``InputError`` for an unfinished run, or a table that it was not trained on.
        """
        inputs = finished_stage(directory, KIND)["inputs"]
        training, only_measured = inputs["options"]["loop"]["precision"], inputs.get("only_measured", False)
        files = load_model(directory, KIND)
        table.require_scale(files.config.scale, f"the run {directory}")
        split = Split.load(directory / SPLIT, table, remedy=f"Give the reviews that {directory} was trained on")
        parts = RatingParts.load(directory, files.config, files.identities)
        tokenizer = files.tokenizer()
        encoded = rows_encoded(split, pretrained=inputs["pretrained"] is not None, only_measured=only_measured)
        tokens = TokenizedReviews.of(table.texts_at(encoded), tokenizer)
        accelerator = make_accelerator(device)
        precision = states_precision(training, only_measured=only_measured)
        model = files.build_rating_model().to(accelerator.device)
        return cls(
            directory=directory,
            table=table,
            files=files,
            split=split,
            parts=parts,
            reader=load_text_reader(directory, files.tokenizer_json),
            tokens=tokens,
            model=model,
            bank=cached_states(states, model.review_encoder, tokens, tokenizer, precision),
            accelerator=accelerator,
        )

    @property
    def states(self) -> ReviewStates:
        """The states of the table's reviews."""
        return ReviewStates(encoder=self.model.review_encoder, tokens=self.tokens, bank=self.bank)

    def histories(self, pairs: Rows) -> Histories:
        """Both sides of pairs that training has not read, from the training part's reviews."""
        return self._known.histories(pairs, self.parts.blend.bias, self.parts.deviations)

    def ratings_without_text(self, pairs: Rows) -> Floats:
        """Ratings, (P,) in stars, by a bias model fitted anew without any text, of pairs that training has not read.

        Raises ``InputError`` if the run lacks the rows that it has read in other domains.
        """
        path = self.directory / ELSEWHERE
        try:
            elsewhere = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise InputError(f"{path} cannot be read ({reason}): fine-tune again, with a new directory") from error
        table, split, config = self.table, self.split, self.files.config
        known = known_reviews(table, self.tokens, split, config, reader=None, elsewhere=elsewhere)
        ratings = table.rating.astype(np.float64)
        fitted = fit_bias_model(known, split.train, ratings[split.train], config.scale)
        sums = known.sums(pairs, fitted.usual)
        without = replace(self.parts.blend, bias=fitted.model)
        return without.rate(sums.user, sums.item, np.zeros(len(pairs)), np.zeros(len(pairs), dtype=bool))

    def source(self, bank: StateBank) -> PairSource:
        """Batches of pairs over the states of a bank."""
        return PairSource(table=self.table, identities=self.files.identities, tokens=self.tokens, bank=bank)

    @cached_property
    def _known(self) -> KnownReviews:
        return known_reviews(self.table, self.tokens, self.split, self.files.config, self.reader)
