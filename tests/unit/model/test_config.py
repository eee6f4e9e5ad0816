"""Configuration validates itself: a message names the field, its value and what to do instead."""

import json
import math
from typing import Any

import numpy as np
import pytest

from ubert_model.config import PRESETS, ModelConfig, RatingScale, preset
from ubert_model.errors import ConfigError
from ubert_model.states.pooling import pool_neighbours

WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"max_length": 2}, "max_length = 2", "use 3 to 512 tokens"),
    ({"max_length": 513, "max_rows": 600}, "max_length = 513", "use 3 to 512 tokens"),
    ({"pretrain_max_length": 0}, "pretrain_max_length = 0", "use 3 to 512 tokens"),
    ({"max_reviews": 0}, "max_reviews = 0", "use 1 or more"),
    ({"max_length": 64, "max_rows": 63}, "max_rows = 63", "at least 64 rows"),
    ({"max_length": 300, "max_rows": 19, "tokens_a_row": 16}, "max_rows = 19", "at least 20 rows"),
    ({"tokens_a_row": 0}, "tokens_a_row = 0", "use 1 to 64 tokens"),
    ({"dropout": 1.0}, "dropout = 1.0", "probability from 0 to below 1"),
    ({"dropout": -0.1}, "dropout = -0.1", "probability from 0 to below 1"),
    ({"dropout": math.nan}, "dropout = nan", "probability from 0 to below 1"),
    ({"encoder_layers": 0}, "encoder_layers = 0", "use 1 or more layers, or none"),
    ({"state_dim": 0}, "state_dim = 0", "dimension from 1 to 65535, or none"),
    ({"state_dim": 65_536}, "state_dim = 65536", "dimension from 1 to 65535, or none"),
    ({"state_dim": 64.5}, "state_dim = 64.5", "use a whole number or null"),
    ({"state_dim": True}, "state_dim = True", "use a whole number or null"),
    ({"dropout": "0.1"}, "dropout = '0.1'", "use a number"),
    ({"history_ratings": 1}, "history_ratings = 1", "use true or false"),
    ({"backbone": None}, "backbone = None", "use a text"),
    ({"scale": 5}, "scale = 5", "use RatingScale"),
    ({"rating_base": "mean"}, "rating_base = 'mean'", "leave_one_out_bias"),
    ({"id_embeddings": "all"}, "id_embeddings = 'all'", "shrunk"),
]


@pytest.mark.parametrize(("options", "named", "remedy"), WRONG, ids=[named for _, named, _ in WRONG])
def test_a_wrong_option_is_refused_with_its_name_its_value_and_the_remedy(
    options: dict[str, Any], named: str, remedy: str
) -> None:
    with pytest.raises(ConfigError) as refusal:
        ModelConfig(**options)
    assert named in str(refusal.value)
    assert remedy in str(refusal.value)


@pytest.mark.parametrize(
    "options",
    [
        {"max_length": 3, "max_rows": 3},
        {"max_length": 512, "max_rows": 512, "pretrain_max_length": 512},
        {"max_length": 300, "max_rows": 20, "tokens_a_row": 16},
        {"dropout": 0.0, "max_reviews": 1, "state_dim": 1},
    ],
    ids=str,
)
def test_options_at_their_bounds_are_accepted(options: dict[str, Any]) -> None:
    config = ModelConfig(**options)
    assert {name: getattr(config, name) for name in options} == options


@pytest.mark.parametrize("length", [3, 17, 18, 33, 34])
@pytest.mark.parametrize("tokens_a_row", [1, 2, 16])
def test_the_longest_review_has_the_rows_that_pooling_makes_of_it(length: int, tokens_a_row: int) -> None:
    config = ModelConfig(max_length=length, tokens_a_row=tokens_a_row)
    assert config.rows_a_review == len(pool_neighbours(np.zeros((length, 1), dtype=np.float32), tokens_a_row))


@pytest.mark.parametrize("bounds", [(5.0, 5.0), (5.0, 1.0), (math.nan, 5.0), (1.0, math.inf)])
def test_a_scale_needs_two_finite_bounds_in_order(bounds: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match=r"scale = .*lowest below highest"):
        RatingScale(lowest=bounds[0], highest=bounds[1])


@pytest.mark.parametrize(
    ("scale", "text"),
    [(RatingScale(), "1:5"), (RatingScale(lowest=0.5, highest=10), "0.5:10"), (RatingScale(lowest=0.5), "0.5:5")],
)
def test_a_scale_is_printed_and_parsed_as_lowest_and_highest(scale: RatingScale, text: str) -> None:
    assert str(scale) == text
    assert RatingScale.parse(text) == scale


@pytest.mark.parametrize("text", ["5:1", "1:1", "nan:5"])
def test_a_scale_whose_bounds_are_not_in_order_is_not_parsed(text: str) -> None:
    with pytest.raises(ConfigError, match="lowest below highest"):
        RatingScale.parse(text)


@pytest.mark.parametrize("text", ["", "5", "1-5", "1:3:5", "1:x", "one:five"])
def test_a_malformed_scale_is_refused_with_the_expected_form(text: str) -> None:
    with pytest.raises(ConfigError, match="LOWEST:HIGHEST") as refusal:
        RatingScale.parse(text)
    assert repr(text) in str(refusal.value)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_knows_its_name_and_survives_json(name: str) -> None:
    config = preset(name)
    assert config.preset == name
    assert ModelConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_the_preset_paper_has_the_papers_settings_and_no_option_beyond_it() -> None:
    config = preset("paper")
    assert (config.max_length, config.pretrain_max_length) == (220, 200)
    options_beyond_the_paper = (config.state_dim, config.rating_base, config.history_ratings, config.id_embeddings)
    assert options_beyond_the_paper == (None, "none", False, "free")


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError) as refusal:
        preset("huge")
    assert all(name in str(refusal.value) for name in ("'huge'", *PRESETS))


def test_every_option_survives_json() -> None:
    config = preset("tiny").with_options(
        state_dim=8, id_embeddings="none", history_ratings=False, scale=RatingScale(lowest=0, highest=10)
    )
    assert ModelConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_an_unknown_field_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"\['dropuot'\].*remove"):
        ModelConfig.from_json({**preset("tiny").to_json(), "dropuot": 0.1})


def test_an_option_of_none_keeps_the_presets_value_and_others_are_validated() -> None:
    config = preset("minilm")
    assert config.with_options(state_dim=None, dropout=None) == config
    assert config.with_options(dropout=0.0, history_ratings=False).dropout == 0.0
    with pytest.raises(ConfigError, match="dropout"):
        config.with_options(dropout=2)
