"""The pre-training task: its validation part, its masks, the inputs of its loss, and the cost of a step."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from support.small_corpus import small_table
from support.tiny_tokenizer import tiny_tokenizer_json
from ubert_model.config import preset
from ubert_model.ids import Identities, IdTable
from ubert_model.nn.pretraining_model import PretrainingOutput
from ubert_model.tokenizer import ReviewTokenizer
from ubert_training.optimization.loop import LoopOptions
from ubert_training.optimization.objectives import pretraining_loss
from ubert_training.pretraining import pretraining_task
from ubert_training.pretraining.lexicon import Lexicon
from ubert_training.pretraining.masking import Masker
from ubert_training.pretraining.pretrain import pretrain
from ubert_training.pretraining.pretrain_options import PretrainOptions
from ubert_training.pretraining.pretraining_task import PretrainingTask
from ubert_training.splits import random_split
from ubert_training.states.tokens import TokenizedReviews

TABLE = small_table(users=40)
LEXICON = Lexicon(words=frozenset({"good", "solid", "terrible", "junk", "excellent", "love"}), source="the test")
LOOP = LoopOptions(epochs=1, batch_size=16, learning_rate=1e-3)
TOKENIZER = ReviewTokenizer(tiny_tokenizer_json(), 24)


class RecordingModel(nn.Module):
    """Predicts zeros, and records the tokens that it was shown and those that it was to predict."""

    def forward(
        self, users: Tensor, domains: Tensor, token_ids: Tensor, token_mask: Tensor, predicted_mask: Tensor
    ) -> PretrainingOutput:
        self.shown, self.predicted = token_ids, predicted_mask
        logits = torch.zeros(int(predicted_mask.sum()), TOKENIZER.vocabulary_size, requires_grad=True)
        return PretrainingOutput(logits, torch.zeros(len(users)))


def make_task(beta: float = PretrainOptions().beta) -> PretrainingTask:
    """A task over all reviews."""
    return PretrainingTask(
        RecordingModel(),  # type: ignore[arg-type]
        TABLE,
        np.arange(len(TABLE)),
        np.zeros(len(TABLE), dtype=np.int64),
        Identities(IdTable(()), IdTable(()), IdTable.of(TABLE.domains), {}, TABLE.domains[0]),
        TOKENIZER,
        Masker(TOKENIZER, LEXICON.words, "opinion"),
        PretrainOptions(loop=LOOP, beta=beta),
        Accelerator(cpu=True),
    )


def test_a_twentieth_of_the_readable_reviews_is_for_validation_only() -> None:
    task = make_task()
    trained = np.concatenate(task.batches(0))
    readable = [row for row in range(len(TABLE)) if TABLE.text[row]]
    assert sorted([*trained.tolist(), *task.validation_rows.tolist()]) == readable
    assert len(task.validation_rows) == round(len(readable) / 20)


def test_the_mask_of_a_review_depends_on_the_epoch_and_not_on_its_batch() -> None:
    task, model = make_task(), RecordingModel()

    def masks(rows: list[int], epoch: int) -> dict[int, tuple[list[int], list[bool]]]:
        task.loss(model, np.array(rows), epoch)
        masked = zip(rows, model.shown.tolist(), model.predicted.tolist(), task.tokens.lengths[rows], strict=True)
        return {row: (shown[:length], predicted[:length]) for row, shown, predicted, length in masked}

    rows = task.training_rows[:20].tolist()
    together = masks(rows, 0)
    for row in rows:
        assert masks([row], 0) == {row: together[row]}
    assert masks(rows, 1) != together


def test_the_loss_gets_the_original_tokens_the_ratings_and_beta(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: dict[str, Any] = {}

    def recorded_loss(**arguments: Any) -> Tensor:
        recorded.update(arguments)
        return pretraining_loss(**arguments)

    monkeypatch.setattr(pretraining_task, "pretraining_loss", recorded_loss)
    task, model = make_task(beta=7.0), RecordingModel()
    rows = task.training_rows[:30]
    task.loss(model, rows, 0)
    original = task.tokens.padded(rows)[0][model.predicted]
    assert recorded["token_targets"].tolist() == original.tolist()
    assert (model.shown[model.predicted] != original).any()
    assert recorded["token_reviews"].tolist() == np.repeat(np.arange(30), model.predicted.sum(dim=1)).tolist()
    assert recorded["ratings"].tolist() == TABLE.rating[rows].tolist()
    assert recorded["beta"] == 7.0


def test_validation_uses_the_same_masks_every_time() -> None:
    task = make_task()
    first = task.validation_losses()
    task.loss(task.model, task.training_rows[:4], 1)
    np.testing.assert_array_equal(task.validation_losses(), first)


def test_a_step_does_not_compute_the_lengths_of_the_whole_corpus_for_each_review(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For millions of reviews that would take longer than the network."""
    computed: list[int] = []

    def lengths(tokens: TokenizedReviews) -> np.ndarray:
        computed.append(len(tokens))
        return np.diff(tokens.starts)

    monkeypatch.setattr(TokenizedReviews, "lengths", property(lengths))
    split = random_split(TABLE, np.arange(len(TABLE)), seed=0)
    pretrain(TABLE, split, preset("tiny"), LEXICON, PretrainOptions(corpus="target", loop=LOOP), tmp_path / "out")
    steps = len(split.train) / LOOP.batch_size
    assert len(computed) < 2 * steps


def test_each_held_out_review_has_a_validation_loss_of_its_own() -> None:
    """Improvement is judged by the standard error of their paired differences, which takes them as independent."""
    task = make_task(beta=2.0)
    rows = task.validation_rows
    rating_errors = 2.0 * np.square(TABLE.rating[rows])  # the model predicts zero stars, and each token alike
    token_losses = [np.log(TOKENIZER.vocabulary_size) * (len(task.maskable[row]) > 0) for row in rows.tolist()]
    np.testing.assert_allclose(task.validation_losses(), rating_errors + token_losses, rtol=1e-6)
