"""Pairs as tensors: padding, order and neighbours never change a network output (law 3, on the training side)."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from transformers import BertConfig

from support.small_corpus import small_table
from ubert_model.config import IdEmbeddings, ModelConfig, preset
from ubert_model.nn.pair_model import PairModel
from ubert_model.nn.rating_model import RatingModel
from ubert_model.nn.review_encoder import ReviewEncoder
from ubert_model.tokenizer import ReviewTokenizer
from ubert_training.finetuning.bias_fit import fit_bias_model
from ubert_training.finetuning.finetune import target_identities
from ubert_training.finetuning.finetune_options import FinetuneOptions
from ubert_training.finetuning.finetuning_task import FinetuningTask
from ubert_training.finetuning.histories import KnownReviews
from ubert_training.finetuning.network_outputs import network_outputs
from ubert_training.finetuning.pair_batches import PairSource
from ubert_training.optimization.loop import LoopOptions
from ubert_training.splits import random_split
from ubert_training.states.state_bank import StateBank, encode_batch
from ubert_training.states.tokens import TokenizedReviews
from ubert_training.weights.backbones import load_backbone

TABLE = small_table()
SPLIT = random_split(TABLE, np.arange(len(TABLE)), seed=0)
CPU = Accelerator(cpu=True)


class RandomModel:
    """A randomly initialized model of the preset tiny, the states of all reviews, and the test pairs to rate."""

    def __init__(self, tokens_a_row: int) -> None:
        torch.manual_seed(0)
        self.config: ModelConfig = preset("tiny").with_options(tokens_a_row=tokens_a_row)
        tokenizer = ReviewTokenizer(load_backbone("random-tiny").tokenizer_json, self.config.max_length)
        self.tokens = TokenizedReviews.of(TABLE.text, tokenizer)
        bert = BertConfig(
            vocab_size=tokenizer.vocabulary_size,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
        )
        identities = target_identities(TABLE, SPLIT)
        self.model = RatingModel(
            ReviewEncoder.from_config(bert, self.config.state_dim, tokens_a_row),
            self.config,
            users=len(identities.users),
            items=len(identities.items),
            domains=len(identities.domains),
            mean_rating=3.0,
        ).eval()
        torch.nn.init.normal_(self.model.head.prediction_layer.output.weight)
        known = KnownReviews(TABLE, SPLIT.train, self.tokens.row_counts(tokens_a_row), self.config)
        ratings = TABLE.rating[SPLIT.train].astype(np.float64)
        fitted = fit_bias_model(known, SPLIT.train, ratings, self.config.scale)
        self.known = known
        self.histories = known.histories(SPLIT.test, fitted.model, fitted.usual)
        starts = self.tokens.row_starts(tokens_a_row)
        encoder = self.model.review_encoder
        states = np.zeros((starts[-1], 32), dtype=np.float32)
        for row in np.flatnonzero(self.tokens.lengths).tolist():
            states[starts[row] : starts[row + 1]] = encode_batch(encoder, self.tokens, np.array([row]))[0]
        bank = StateBank(states, starts)
        self.cached = PairSource(table=TABLE, identities=identities, tokens=self.tokens, bank=bank)
        self.encoding = replace(self.cached, bank=None, tokens_a_row=tokens_a_row)


@pytest.fixture(scope="module", params=[1, 3], ids="tokens_a_row={}".format)
def random_model(request: pytest.FixtureRequest) -> RandomModel:
    return RandomModel(request.param)


def test_cached_states_give_the_outputs_of_fresh_ones(random_model: RandomModel) -> None:
    model = PairModel(random_model.model)
    cached = network_outputs(model, random_model.cached, random_model.histories, CPU)
    fresh = network_outputs(model, random_model.encoding, random_model.histories, CPU)
    assert np.abs(cached - fresh).max() < 1e-4
    assert cached.std() > 0.01


def test_a_batch_of_pairs_gives_the_outputs_of_each_pair_alone(random_model: RandomModel) -> None:
    model = PairModel(random_model.model)
    together = network_outputs(model, random_model.cached, random_model.histories, CPU)
    with torch.inference_mode():
        for position in range(len(random_model.histories)):
            if random_model.histories.has_both_sides[position]:
                alone = model(random_model.cached.batch(random_model.histories, np.array([position])))
                assert alone.item() == pytest.approx(together[position], abs=1e-5)


def test_a_batch_holds_the_ids_states_and_residuals_of_its_pairs(random_model: RandomModel) -> None:
    source, histories = random_model.cached, random_model.histories
    pairs = np.arange(len(histories))
    batch = source.batch(histories, pairs)
    assert source.bank is not None
    assert batch.states is not None
    identities, rows = source.identities, SPLIT.test.tolist()
    assert batch.user.tolist() == [identities.users.row(TABLE.user[row]) for row in rows]
    assert batch.item.tolist() == [identities.items.row(TABLE.item[row]) for row in rows]
    assert batch.domain.tolist() == [identities.domain_row(TABLE.item[row]) for row in rows]
    for side, reviews, residuals in (
        (batch.user_side, histories.user_rows, histories.user_residuals),
        (batch.item_side, histories.item_rows, histories.item_residuals),
    ):
        for pair in pairs.tolist():
            states = [source.bank.review(row) for row in reviews[pair]]
            real = side.mask[pair]
            assert int(real.sum()) == sum(map(len, states))
            if states:
                np.testing.assert_array_equal(batch.states[side.state_index[pair, real]], np.concatenate(states))
                expected = np.repeat(residuals[pair], [len(review_states) for review_states in states])
                np.testing.assert_array_equal(side.residuals[pair, real], expected)


def test_sizes_are_the_rows_of_states_on_both_sides(random_model: RandomModel) -> None:
    source, histories = random_model.cached, random_model.histories
    batch = source.batch(histories, np.arange(len(histories)))
    expected = torch.stack([batch.user_side.mask.sum(dim=1), batch.item_side.mask.sum(dim=1)], dim=1)
    assert source.sizes(histories).tolist() == expected.tolist()
    assert histories.has_both_sides.tolist() == (expected > 0).all(dim=1).tolist()


@pytest.mark.parametrize(("id_embeddings", "id_rate"), [("shrunk", 1e-6), ("free", None)])
def test_each_part_of_the_model_has_its_own_learning_rate(
    random_model: RandomModel, id_embeddings: IdEmbeddings, id_rate: float | None
) -> None:
    """None: the learning rate of the loop. Vectors have no weight decay; frozen weights are in no group."""
    loop = LoopOptions(epochs=1, batch_size=4, learning_rate=1e-4, weight_decay=0.1)
    options = FinetuneOptions(encoder_learning_rate=2e-5, projection_learning_rate=3e-3, loop=loop)
    task = FinetuningTask(random_model.model, random_model.cached, random_model.known, SPLIT, options, CPU)
    task.config = random_model.config.with_options(id_embeddings=id_embeddings)
    frozen = random_model.model.get_parameter("review_encoder.bert.embeddings.word_embeddings.weight")
    frozen.requires_grad_(False)
    names = {parameter: name for name, parameter in random_model.model.named_parameters()}
    found = {names[weight]: group for group in task.parameter_groups(loop) for weight in group["params"]}
    assert set(found) == set(names.values()) - {names[frozen]}
    expected = {"review_encoder.bert": 2e-5, "review_encoder.projection": 3e-3}
    if id_rate is not None:
        expected |= dict.fromkeys(("user_query.embedding", "item_query.embedding"), id_rate)
    for name, group in found.items():
        rate = next((rate for part, rate in expected.items() if name.startswith(part)), None)
        assert group.get("lr") == (None if rate is None else pytest.approx(rate)), name
        assert group["weight_decay"] == (0.1 if random_model.model.get_parameter(name).ndim > 1 else 0.0), name
    frozen.requires_grad_(True)


def test_length_buckets_hold_every_review_once_within_the_budget(random_model: RandomModel) -> None:
    rows = np.flatnonzero(random_model.tokens.lengths)
    buckets = list(random_model.tokens.length_buckets(rows, token_budget=64))
    assert sorted(np.concatenate(buckets).tolist()) == rows.tolist()
    for bucket in buckets:
        assert random_model.tokens.lengths[bucket].max() * len(bucket) <= 64 or len(bucket) == 1
