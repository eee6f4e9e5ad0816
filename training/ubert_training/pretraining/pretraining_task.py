"""The pre-training task (Figure 2): its model over batches of reviews, its loss, its validation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from numpy.typing import NDArray
from torch import Tensor, nn

from ubert_model.ids import Identities
from ubert_model.nn.pretraining_model import PretrainingModel
from ubert_model.tokenizer import ReviewTokenizer
from ubert_training.optimization.batches import Indices, shuffled_bucketed_batches
from ubert_training.optimization.loop import LoopOptions, decayed_groups
from ubert_training.optimization.objectives import pretraining_loss
from ubert_training.pretraining.masking import Masker
from ubert_training.pretraining.pretrain_options import PretrainOptions
from ubert_training.reviews.table import ReviewTable, Rows
from ubert_training.running.processes import process_share, sum_over_processes
from ubert_training.states.tokens import TOKENS_PER_BATCH, TokenizedReviews

VALIDATION_SHARE = 0.05


class PretrainingTask:
    """Eq. 9 over the rows of the corpus; a twentieth of them is held out for validation."""

    def __init__(
        self,
        model: PretrainingModel,
        table: ReviewTable,
        rows: Rows,
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
        """BERT has its own, small learning rate."""
        return decayed_groups(
            self.model,
            options.weight_decay,
            rates={"review_encoder.bert": self.options.encoder_learning_rate},
        )

    def batches(self, epoch: int) -> Sequence[Indices]:
        """Batches of similar length."""
        loop, lengths = self.options.loop, self.tokens.lengths[:, None]
        return shuffled_bucketed_batches(self.training_rows, lengths, loop.batch_size, loop.seed, epoch)

    def loss(self, model: nn.Module, rows: Indices, epoch: int) -> Tensor:
        """Eq. 9, averaged over reviews where the paper sums over the corpus; a mask is drawn by (seed, epoch)."""
        return self._losses(model, rows, [self.options.loop.seed, 13, epoch]).mean()

    def validation_losses(self) -> NDArray[np.float64]:
        """Eq. 9 of each held-out review, under the same masks every time."""
        batches = list(self.tokens.length_buckets(self.validation_rows, TOKENS_PER_BATCH))
        losses = np.zeros(len(self.validation_rows))
        for rows in process_share(self.accelerator, batches):
            losses[np.searchsorted(self.validation_rows, rows)] = self._losses(self.model, rows, [17]).tolist()
        return sum_over_processes(self.accelerator, losses)

    def _losses(self, model: nn.Module, rows: Indices, seed: list[int]) -> Tensor:
        """Eq. 9 of each review, (B,); a review's mask depends on the seed and its row, not on the batch around it."""
        token_ids, token_mask = self.tokens.padded(rows)
        masked = [
            self.masker.mask(ids, self.maskable[row], np.random.default_rng([*seed, row]))
            for row, ids in zip(rows.tolist(), token_ids.numpy(), strict=True)
        ]
        shown, predicted_mask = (torch.from_numpy(np.stack(arrays)) for arrays in zip(*masked, strict=True))
        inputs = (self.users[rows], self.domains[rows], shown, token_mask, predicted_mask)
        output = model(*send_to_device(inputs, self.device))
        return pretraining_loss(
            token_logits=output.token_logits,
            token_targets=token_ids[predicted_mask].to(self.device),
            token_reviews=predicted_mask.nonzero()[:, 0].to(self.device),
            predicted=output.rating,
            ratings=self.ratings[rows].to(self.device),
            beta=self.options.beta,
        )
