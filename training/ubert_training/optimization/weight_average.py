"""Moving average of a model's weights: it keeps what the last steps have in common and cancels their noise."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

DECAY_WARMUP = 10
"""The n-th update's decay is at most n / (n + DECAY_WARMUP − 1), so that the first weights are soon forgotten."""


class WeightAverage:
    """Exponential moving average of a model's trainable weights.

    ``decay``: the average's weight in an update, so that it covers about the last 1 / (1 − decay) updates; fewer while
    few have been made.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self._average = {name: weight.detach().clone() for name, weight in self._weights.items()}

    def update(self, updates: int) -> None:
        """Add the weights as they are after the ``updates``-th update, counted from 1."""
        decay = min(self._decay, updates / (updates + DECAY_WARMUP - 1))
        with torch.no_grad():
            for name, weight in self._weights.items():
                self._average[name].lerp_(weight, 1.0 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the model the averaged weights; on leaving, it gets its own back."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state(self) -> dict[str, Tensor]:
        """The average by name, for a checkpoint."""
        return {name: tensor.cpu() for name, tensor in self._average.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Load the average of a checkpoint."""
        for name, tensor in self._average.items():
            tensor.copy_(state[name])

    def _swap(self) -> None:
        with torch.no_grad():
            for name, weight in self._weights.items():
                current = weight.detach().clone()
                weight.copy_(self._average[name])
                self._average[name].copy_(current)
