"""An average of a model's weights over the last steps: steps go up and down, what they have in common stays."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

FIRST_STEPS = 10
"""While fewer updates than about this have been made, the average is over fewer."""


class WeightAverage:
    """Exponential moving average of the trainable weights of a model, frozen ones being what they are.

    ``decay``: what is left of the average after an update, so that it is over the last 1 / (1 − decay) of them; over
    as many as there have been, while these are fewer.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self._average = {name: weight.detach().clone() for name, weight in self._weights.items()}

    def update(self, updates: int) -> None:
        """Take in the weights as they are after the ``updates``-th update, counted from 1."""
        decay = min(self._decay, updates / (updates + FIRST_STEPS - 1))
        with torch.no_grad():
            for name, weight in self._weights.items():
                self._average[name].lerp_(weight, 1.0 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the average for its weights."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def state(self) -> dict[str, Tensor]:
        """The average by name, for a checkpoint."""
        return {name: tensor.cpu() for name, tensor in self._average.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        for name, tensor in self._average.items():
            tensor.copy_(state[name])

    def _exchange(self) -> None:
        with torch.no_grad():
            for name, weight in self._weights.items():
                current = weight.detach().clone()
                weight.copy_(self._average[name])
                self._average[name].copy_(current)
