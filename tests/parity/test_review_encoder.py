"""Law 1 for the review encoder: Eq. 1–4 and 10, and the projection beyond the paper."""

import numpy as np
import pytest
import torch

from reference.layers import part
from reference.review_encoder import eq01_attention, eq10_review_states, projected_states
from support.closeness import assert_equals_reference
from support.random_models import HEADS, MAX_POSITIONS, VOCABULARY, review_encoder, weights_of
from ubert_model.nn.attention import attend

LENGTHS = {"one token": [1], "one review": [9], "ragged": [4, 1, 11, 7], "longest": [MAX_POSITIONS, 2]}


@pytest.mark.parametrize("state_dim", [None, 16])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_padded_batch_of_reviews_equals_eq_10_review_by_review(lengths: list[int], state_dim: int | None) -> None:
    encoder = review_encoder(state_dim)
    weights = weights_of(encoder)
    generator = torch.Generator().manual_seed(1)
    token_ids = torch.randint(VOCABULARY, (len(lengths), max(lengths)), generator=generator)
    token_mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        token_states = encoder.encode(token_ids, token_mask)
        states = encoder(token_ids, token_mask)
    for review, length in enumerate(lengths):
        expected = eq10_review_states(part(weights, "bert"), token_ids[review, :length].numpy(), HEADS)
        assert_equals_reference(token_states[review, :length], expected)
        assert_equals_reference(states[review, :length], projected_states(weights, expected))


@pytest.mark.parametrize(("queries", "keys", "dim"), [(1, 1, 1), (1, 7, 16), (5, 3, 8)])
def test_attention_equals_eq_1(queries: int, keys: int, dim: int) -> None:
    random = np.random.default_rng(2)
    query, key, value = (random.normal(size=(2, rows, dim)) for rows in (queries, keys, keys))
    mask = torch.ones(2, keys, dtype=torch.bool)
    query_tensor, key_tensor, value_tensor = (torch.from_numpy(rows).float() for rows in (query, key, value))
    actual = attend(query_tensor, key_tensor, value_tensor, mask)
    assert_equals_reference(actual, [eq01_attention(query[b], key[b], value[b]) for b in range(2)])
