"""Law 1 for the pre-training heads, the pre-training model and its loss: Eq. 5–9."""

from typing import Any

import numpy as np
import pytest
import torch

from reference.pretraining import (
    ReviewPrediction,
    eq07_token_probabilities,
    eq08_opinion_rating,
    eq09_pretraining_loss,
    pretraining_forward,
)
from support.closeness import assert_equals_reference
from support.random_models import (
    DOMAINS,
    HEADS,
    USERS,
    VOCABULARY,
    pretraining_model,
    random_rows,
    randomized,
    weights_of,
)
from ubert_model.nn.pretraining_heads import OpinionRatingHead, OpinionTokenHead
from ubert_training.optimization.objectives import pretraining_loss


def test_opinion_token_head_equals_eq_7_token_by_token() -> None:
    head = randomized(OpinionTokenHead(12, 8, vocabulary=30))
    states, users, words = random_rows(4, 12, 1), random_rows(4, 8, 2), random_rows(30, 12, 3)
    weights = weights_of(head)
    expected = np.concatenate(
        [
            eq07_token_probabilities(
                weights, words.double().numpy(), states[m : m + 1].double().numpy(), users[m].double().numpy()
            )
            for m in range(4)
        ]
    )
    assert_equals_reference(head(states, users, words).softmax(dim=-1), expected)


def test_opinion_rating_head_equals_eq_8() -> None:
    head = randomized(OpinionRatingHead(8, mean_rating=4.0))
    users = random_rows(3, 8, 4)
    weights = weights_of(head)
    assert_equals_reference(head(users), [eq08_opinion_rating(weights, user.double().numpy()) for user in users])


OPTIONS: dict[str, dict[str, Any]] = {
    "projected": {"state_dim": 16, "id_embeddings": "shrunk"},
    "the paper's": {"state_dim": None, "id_embeddings": "free"},
    "no identities": {"state_dim": None, "id_embeddings": "none"},
}
LENGTHS = {"one review": [7], "ragged": [5, 2, 9, 12]}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("beta", [0.0, 3.0])
def test_pretraining_model_and_loss_equal_figure_2_review_by_review(
    lengths: list[int], options: dict[str, Any], beta: float
) -> None:
    model = pretraining_model(**options)
    weights = weights_of(model)
    random = np.random.default_rng(5)
    B, L = len(lengths), max(lengths)
    users, domains = random.integers(0, USERS + 1, B), random.integers(0, DOMAINS + 1, B)
    token_ids, true_ids = random.integers(0, VOCABULARY, (2, B, L))
    token_mask = np.arange(L) < np.array(lengths)[:, None]
    predicted_mask = token_mask & (random.random((B, L)) < 0.5)
    predicted_mask[0, 0] = True
    predicted_mask[1:2] = False  # a review without an opinion word
    ratings = random.uniform(1, 5, B)

    with torch.no_grad():
        output = model(*(torch.from_numpy(x) for x in (users, domains, token_ids, token_mask, predicted_mask)))
        losses = pretraining_loss(
            token_logits=output.token_logits,
            token_targets=torch.from_numpy(true_ids[predicted_mask]),
            token_reviews=torch.from_numpy(np.nonzero(predicted_mask)[0]),
            predicted=output.rating,
            ratings=torch.from_numpy(ratings).float(),
            beta=beta,
        )

    reviews, all_probabilities = [], []
    for review, length in enumerate(lengths):
        positions = np.nonzero(predicted_mask[review])[0]
        user = int(users[review]) if options["id_embeddings"] != "none" else 0
        probabilities, predicted_rating = pretraining_forward(
            weights, HEADS, user, int(domains[review]), token_ids[review, :length], positions.tolist()
        )
        all_probabilities.append(probabilities)
        reviews.append(
            ReviewPrediction(
                target_probabilities=probabilities[np.arange(len(positions)), true_ids[review, positions]],
                predicted_rating=predicted_rating,
                rating=ratings[review],
            )
        )
    assert_equals_reference(output.token_logits.softmax(dim=-1), np.concatenate(all_probabilities))
    assert_equals_reference(output.rating, [review.predicted_rating for review in reviews])
    assert_equals_reference(losses, [eq09_pretraining_loss([review], beta) for review in reviews])


@pytest.mark.parametrize("reviews_of_tokens", [[], [1], [0, 2, 2, 2]], ids=["no token", "one token", "uneven"])
def test_every_review_weighs_the_same_in_the_loss_however_many_tokens_are_masked(reviews_of_tokens: list[int]) -> None:
    logits = random_rows(len(reviews_of_tokens), 6, 6)
    targets = torch.arange(len(reviews_of_tokens))
    predicted, ratings = torch.tensor([3.0, 4.5, 2.0]), torch.tensor([5.0, 4.0, 2.0])
    probabilities = logits.double().softmax(dim=-1)[targets, targets].numpy()
    reviews = [
        ReviewPrediction(
            target_probabilities=probabilities[np.array(reviews_of_tokens) == k],
            predicted_rating=float(predicted[k]),
            rating=float(ratings[k]),
        )
        for k in range(3)
    ]
    losses = pretraining_loss(
        token_logits=logits,
        token_targets=targets,
        token_reviews=torch.tensor(reviews_of_tokens, dtype=torch.int64),
        predicted=predicted,
        ratings=ratings,
        beta=3.0,
    )
    assert_equals_reference(losses, [eq09_pretraining_loss([review], beta=3.0) for review in reviews])
