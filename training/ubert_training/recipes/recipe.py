"""A recipe: all choices made before training, the model's configuration and the options of both stages."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from ubert_model.config import ModelConfig, RatingScale, preset
from ubert_model.errors import ConfigError
from ubert_model.validation import require
from ubert_training.finetuning.finetune_options import FinetuneOptions
from ubert_training.optimization.loop import LoopOptions
from ubert_training.pretraining.pretrain_options import PretrainOptions, default_loop, default_trainable_layers
from ubert_training.running.devices import DeviceChoice
from ubert_training.running.digests import plain

READ_BY_PRETRAINING = (
    "backbone",
    "encoder_layers",
    "pretrain_max_length",
    "state_dim",
    "dropout",
    "id_embeddings",
    "scale",
)
"""Fields of a configuration that affect pre-training; recipes that agree in them can share a pre-trained model."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """``pretraining``: None for a model that starts from the plain backbone (the paper's U-BERT P−)."""

    config: ModelConfig
    pretraining: PretrainOptions | None
    finetuning: FinetuneOptions

    @classmethod
    def of_preset(cls, name: str, scale: RatingScale) -> Self:
        """What `ubert pretrain` and `ubert finetune` do by default with that preset."""
        loop = LoopOptions.of(default_loop(name))
        return cls(
            config=preset(name).with_options(scale=scale),
            pretraining=PretrainOptions(loop=loop, trainable_layers=default_trainable_layers(name)),
            finetuning=FinetuneOptions(),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a file."""
        return dict(plain(self))

    @classmethod
    def from_json(cls, values: Mapping[str, Any], base: Self | None = None) -> Self:
        """Inverse of :meth:`to_json`; what is missing, at any depth, is taken from ``base``.

        Raises ``ConfigError`` for anything that is not a recipe.
        """
        parts = [part.name for part in fields(cls)]
        require(isinstance(values, Mapping), "recipe", values, f"write an object of {', '.join(parts)}")
        unknown = sorted(set(values) - set(parts))
        require(not unknown, "recipe", unknown, f"a recipe has no such parts, only {', '.join(parts)}")
        values = _filled_in(values, base.to_json() if base else {})
        try:
            pretraining, finetuning = values["pretraining"], values["finetuning"]
            return cls(
                config=ModelConfig.from_json(values["config"]),
                pretraining=PretrainOptions(**{**pretraining, "loop": LoopOptions(**pretraining["loop"])})
                if pretraining is not None
                else None,
                finetuning=FinetuneOptions(**{**finetuning, "loop": LoopOptions(**finetuning["loop"])}),
            )
        except (KeyError, TypeError) as error:
            raise ConfigError(
                f"this is not a recipe of this version ({error}): run `ubert tune` again, or correct it"
            ) from error

    def on(self, device: DeviceChoice) -> Self:
        """The same recipe on another device."""
        pretraining = replace(self.pretraining, device=device) if self.pretraining is not None else None
        return replace(self, pretraining=pretraining, finetuning=replace(self.finetuning, device=device))

    def seeded(self, seed: int, *, pretraining_seed: int | None = None) -> Self:
        """The same recipe with this seed; ``pretraining_seed`` (None: the same) is that of pre-training."""
        of_pretraining = seed if pretraining_seed is None else pretraining_seed
        return self._with_loops("seed", pretraining=of_pretraining, finetuning=seed)

    def shortened(self, *, pretrain_epochs: int | None, finetune_epochs: int | None) -> Self:
        """With other numbers of epochs; None leaves a stage as it is."""
        return self._with_loops("epochs", pretraining=pretrain_epochs, finetuning=finetune_epochs)

    def varied(
        self,
        *,
        model: Mapping[str, Any] | None = None,
        pretraining: Mapping[str, Any] | None = None,
        pretrained: bool = True,
        learning_rate: float | None = None,
    ) -> Self:
        """With other fields of the configuration and of pre-training, without pre-training, or with another learning
        rate of fine-tuning.
        """
        options = self.pretraining if pretrained else None
        if options is not None and pretraining:
            options = replace(options, **pretraining)
        varied = replace(self, config=replace(self.config, **(model or {})), pretraining=options)
        return varied._with_loops("learning_rate", pretraining=None, finetuning=learning_rate)

    def _with_loops(self, option: str, *, pretraining: Any, finetuning: Any) -> Self:
        """With one option of the stages' loops replaced; None leaves a stage as it is."""
        first, second = self.pretraining, self.finetuning
        if first is not None and pretraining is not None:
            first = replace(first, loop=replace(first.loop, **{option: pretraining}))
        if finetuning is not None:
            second = replace(second, loop=replace(second.loop, **{option: finetuning}))
        return replace(self, pretraining=first, finetuning=second)

    @property
    def pretraining_config(self) -> ModelConfig:
        """The configuration for pre-training: what it reads from this one, all else from the preset."""
        read = {name: getattr(self.config, name) for name in READ_BY_PRETRAINING}
        return replace(preset(self.config.preset), **read)


def _filled_in(given: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """``given``, with what it lacks of ``base``, at any depth."""
    nested = {
        name: _filled_in(value, base[name])
        for name, value in given.items()
        if isinstance(value, Mapping) and isinstance(base.get(name), Mapping)
    }
    return {**base, **given, **nested}
