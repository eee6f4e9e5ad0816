"""The moving average of the weights, and that the model gets its own weights back."""

import pytest
import torch
from torch import nn

from ubert_training.optimization.weight_average import DECAY_WARMUP, WeightAverage


def model_with_a_frozen_part() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    model[0].requires_grad_(False)
    return model


def test_oscillating_weights_are_averaged_and_put_back_afterwards() -> None:
    model = nn.Linear(1, 1, bias=False)
    average = WeightAverage(model, 0.95)
    for update in range(1, 400):
        nn.init.constant_(model.weight, 3.0 + (-1.0) ** update)
        average.update(update)
    with average.in_place():
        assert model.weight.item() == pytest.approx(3.0, abs=0.05)
    assert model.weight.item() == 2.0


def test_the_average_follows_the_first_updates_away_from_the_initial_weights() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = WeightAverage(model, 0.999)
    nn.init.ones_(model.weight)
    for update in range(1, DECAY_WARMUP + 1):
        average.update(update)
    with average.in_place():
        assert model.weight.item() > 0.9


def test_frozen_weights_are_not_averaged() -> None:
    model = model_with_a_frozen_part()
    average = WeightAverage(model, 0.9)
    assert set(average.state()) == {"1.weight", "1.bias"}


def test_an_average_survives_state_and_restore() -> None:
    model = model_with_a_frozen_part()
    average = WeightAverage(model, 0.9)
    nn.init.ones_(model.get_parameter("1.weight"))
    average.update(1)
    restored = WeightAverage(model_with_a_frozen_part(), 0.9)
    restored.restore(average.state())
    for name, tensor in average.state().items():
        assert torch.equal(tensor, restored.state()[name])
