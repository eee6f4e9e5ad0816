"""Law 1 for the input layer's identities and the user and item encoder: Eq. 3, 5, 6 and 11."""

import numpy as np
import pytest
import torch

from reference.entity_encoder import eq06_fuse, eq11_representation, query
from reference.layers import part
from reference.review_encoder import eq03_feed_forward
from support.closeness import assert_equals_reference
from support.random_models import random_rows, random_side, randomized, weights_of
from ubert_model.config import IdEmbeddings
from ubert_model.nn.entity_encoder import EntityEncoder
from ubert_model.nn.fusion import FeedForward, Fusion
from ubert_model.nn.input_layer import DomainEmbedding, QueryEmbedding


@pytest.mark.parametrize("id_embeddings", ["none", "shrunk", "free"])
def test_query_embedding_is_the_normalized_sum_of_entity_and_domain(id_embeddings: IdEmbeddings) -> None:
    queries = randomized(QueryEmbedding(4, 8, id_embeddings))
    domains = randomized(DomainEmbedding(2, 8), seed=1)
    weights, domain_weights = weights_of(queries), weights_of(domains)
    entity, domain = torch.tensor([0, 1, 4, 2]), torch.tensor([2, 0, 1, 1])
    expected = [
        query(
            part(weights, "norm"),
            weights["embedding.weight"][0 if id_embeddings == "none" else row],
            domain_weights["weight"][domain_row],
        )
        for row, domain_row in zip(entity.tolist(), domain.tolist(), strict=True)
    ]
    assert_equals_reference(queries(entity, domains(domain)), expected)


def test_feed_forward_equals_eq_3() -> None:
    feed_forward = randomized(FeedForward(8, dropout=0.1))
    weights = weights_of(feed_forward)
    hidden = random_rows(5, 8)
    expected = eq03_feed_forward(hidden.double().numpy(), part(weights, "expand"), part(weights, "contract"))
    assert_equals_reference(feed_forward(hidden), expected)


def test_fusion_equals_eq_6() -> None:
    fusion, projection = randomized(Fusion(8, dropout=0.1)), randomized(torch.nn.Linear(8, 8, bias=False))
    entity_query, summary = random_rows(3, 8), random_rows(3, 8, seed=4)
    weights, projection_weights = weights_of(fusion), weights_of(projection)
    expected = [
        eq06_fuse(weights, projection_weights, entity_query[b].double().numpy(), summary[b].double().numpy())
        for b in range(3)
    ]
    assert_equals_reference(fusion(projection(entity_query), summary), expected)


LENGTHS = {"one review": [[6]], "one row": [[1]], "ragged": [[3, 5], [2], [4, 1, 1]], "some empty": [[], [4, 2], []]}


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("dim", [8, 16])
def test_entity_encoder_equals_eq_11_entity_by_entity(lengths: list[list[int]], dim: int) -> None:
    encoder = randomized(EntityEncoder(dim, dropout=0.1))
    weights = weights_of(encoder)
    side = random_side(lengths, dim, seed=5)
    queries = random_rows(len(lengths), dim)
    expected = [
        eq11_representation(weights, queries[b].double().numpy(), side.real_states(b)) for b in range(len(lengths))
    ]
    assert_equals_reference(encoder(queries, side.states, side.mask), expected)


def test_without_reviews_the_representation_is_formed_from_the_query_alone() -> None:
    encoder = randomized(EntityEncoder(8, dropout=0.0))
    weights = weights_of(encoder)
    entity_query = random_rows(1, 8)
    side = random_side([[]], 8, seed=6)
    expected = eq06_fuse(
        part(weights, "fusion"), part(weights, "query_projection"), entity_query[0].double().numpy(), np.zeros(8)
    )
    assert_equals_reference(encoder(entity_query, side.states, side.mask), [expected])
