"""Id embeddings: known entities have rows of their own, unknown ones share row 0, which training learns, too."""

import pytest
import torch

from support.random_models import USERS, rating_model
from ubert_model.config import IdEmbeddings
from ubert_model.nn.input_layer import UNKNOWN, QueryEmbedding


def embedding(id_embeddings: IdEmbeddings, unknown_rate: float = 0.1) -> QueryEmbedding:
    torch.manual_seed(0)
    return QueryEmbedding(6, 4, id_embeddings, unknown_rate)


@pytest.mark.parametrize("id_embeddings", ["shrunk", "free"])
def test_every_known_identity_and_the_unknown_one_has_its_own_row(id_embeddings: IdEmbeddings) -> None:
    rows = embedding(id_embeddings).eval().embed(torch.arange(7))
    assert len({tuple(row) for row in rows.tolist()}) == 7


def test_without_id_embeddings_every_entity_is_the_unknown_one() -> None:
    queries = embedding("none").eval()
    assert queries.embedding.weight.shape == (1, 4)
    rows = queries.embed(torch.tensor([0, 3, 6, 10**6]))
    assert torch.equal(rows, queries.embedding.weight[UNKNOWN].expand(4, 4))


@pytest.mark.parametrize(("unknown_rate", "share"), [(0.0, 0.0), (0.25, 0.25), (1.0, 1.0)])
def test_training_replaces_known_identities_by_the_unknown_one_at_the_given_rate(
    unknown_rate: float, share: float
) -> None:
    queries = embedding("free", unknown_rate).train()
    rows = queries.embed(torch.full((4000,), 3))
    unknown = (rows == queries.embedding.weight[UNKNOWN]).all(dim=1)
    assert unknown.float().mean().item() == pytest.approx(share, abs=0.03)
    assert torch.equal(rows[~unknown], queries.embedding.weight[3].expand(int((~unknown).sum()), 4))


def test_evaluation_never_replaces_an_identity() -> None:
    queries = embedding("free", unknown_rate=1.0).eval()
    assert torch.equal(queries.embed(torch.tensor([2, 5])), queries.embedding.weight[[2, 5]])


@pytest.mark.parametrize("id_embeddings", ["none", "free"])
def test_a_rating_depends_on_identities_only_where_they_are_embedded(id_embeddings: IdEmbeddings) -> None:
    model = rating_model(id_embeddings=id_embeddings)
    side = torch.zeros(1, 1, 16), torch.zeros(1, 1), torch.zeros(1, 1, dtype=torch.bool)
    ratings = {
        model(torch.tensor([user]), torch.tensor([item]), torch.tensor([1]), *side, *side).item()
        for user in range(USERS + 1)
        for item in (0, 4)
    }
    assert len(ratings) == (1 if id_embeddings == "none" else 2 * (USERS + 1))
