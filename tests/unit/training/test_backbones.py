"""A checkpoint that cannot be the encoder is refused by name, before anything is trained on it."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from ubert_model.errors import InputError
from ubert_training.weights.backbones import RANDOM_TINY, load_backbone


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The folder of a small BERT checkpoint with its tokenizer."""
    backbone = load_backbone(RANDOM_TINY)
    backbone.bert.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(backbone.tokenizer_json, encoding="utf-8")
    return tmp_path


def set_config(checkpoint: Path, **fields: object) -> None:
    path = checkpoint / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_a_checkpoint_in_a_folder_is_loaded(checkpoint: Path) -> None:
    tokenizer = Tokenizer.from_str(load_backbone(str(checkpoint)).tokenizer_json)
    assert "guitar" in tokenizer.encode("a good guitar").tokens


def test_damaged_weights_are_refused(checkpoint: Path) -> None:
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot be loaded"):
        load_backbone(str(checkpoint))


def test_weights_of_other_shapes_than_the_configuration_are_refused(checkpoint: Path) -> None:
    set_config(checkpoint, intermediate_size=128)
    with pytest.raises(InputError, match=r"has other shapes than its config\.json says, first encoder\.layer\.0"):
        load_backbone(str(checkpoint))


def test_a_checkpoint_without_a_tokenizer_is_refused(checkpoint: Path) -> None:
    (checkpoint / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="has no tokenizer"):
        load_backbone(str(checkpoint))


def test_a_tokenizer_of_more_tokens_than_the_checkpoint_embeds_is_refused(checkpoint: Path) -> None:
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    tokenizer.add_tokens(["one-more"])
    tokenizer.save(str(checkpoint / "tokenizer.json"))
    with pytest.raises(InputError, match="has 30523 tokens and embeds 30522"):
        load_backbone(str(checkpoint))
