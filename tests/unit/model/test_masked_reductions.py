"""Law 7: softmax and maximum are over real entries alone, and a defined zero where there are none."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ubert_model.nn.attention import attend, masked_max, masked_softmax

finite = st.floats(-50, 50, width=32)
rows_with_mask = st.lists(st.tuples(finite, st.booleans()), min_size=1, max_size=8)


def split(rows: list[tuple[float, bool]]) -> tuple[Tensor, Tensor]:
    values, mask = zip(*rows, strict=True)
    return torch.tensor(values), torch.tensor(mask)


@given(rows=rows_with_mask)
def test_masked_softmax_equals_the_softmax_of_the_real_entries_alone(rows: list[tuple[float, bool]]) -> None:
    scores, mask = split(rows)
    weights = masked_softmax(scores, mask)
    torch.testing.assert_close(weights[mask], scores[mask].softmax(dim=-1))
    assert (weights[~mask] == 0).all()


@given(rows=rows_with_mask)
def test_masked_max_is_over_real_rows_even_if_all_of_them_are_negative(rows: list[tuple[float, bool]]) -> None:
    values, mask = split(rows)
    pooled = masked_max(values.reshape(1, -1, 1), mask.reshape(1, -1))
    assert pooled.item() == (values[mask].max() if mask.any() else 0.0)


@pytest.mark.parametrize("padding", [1e6, -1e6, 3e38, math.inf, math.nan])
def test_softmax_and_maximum_ignore_padding_of_any_value(padding: float) -> None:
    values, mask = torch.tensor([-1.0, padding, -2.0]), torch.tensor([True, False, True])
    assert masked_softmax(values, mask)[mask].tolist() == values[mask].softmax(dim=-1).tolist()
    assert masked_max(values.reshape(1, 3, 1), mask.reshape(1, 3)).item() == -1.0


def test_padding_has_weight_zero_even_beside_very_negative_scores() -> None:
    weights = masked_softmax(torch.tensor([-3e4, 0.0, -3e4]), torch.tensor([True, False, True]))
    assert weights.tolist() == [0.5, 0.0, 0.5]


def test_all_masked_gives_zeros_and_zero_gradients() -> None:
    query, states = (torch.randn(2, rows, 4, requires_grad=True) for rows in (1, 3))
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    attended, pooled = attend(query, states, states, nothing), masked_max(states, nothing)
    assert (attended == 0).all()
    assert (pooled == 0).all()
    (attended.sum() + pooled.sum()).backward()
    for tensor in (query, states):
        assert tensor.grad is not None
        assert (tensor.grad == 0).all()


def test_an_all_masked_row_does_not_change_its_batch_neighbours() -> None:
    query, states = torch.randn(2, 1, 4), torch.randn(2, 3, 4)
    mask = torch.tensor([[False] * 3, [True, False, True]])
    torch.testing.assert_close(
        attend(query, states, states, mask)[1:], attend(query[1:], states[1:], states[1:], mask[1:])
    )
    assert masked_max(states, mask)[1].tolist() == states[1, [0, 2]].amax(dim=0).tolist()
