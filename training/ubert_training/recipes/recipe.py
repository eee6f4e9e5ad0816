"""All that is chosen before a model is trained: its configuration and the options of both stages."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from ubert_model.config import ModelConfig, RatingScale, preset, require
from ubert_model.errors import ConfigError
from ubert_training.finetuning.finetune_options import FinetuneOptions
from ubert_training.optimization.loop import LoopOptions
from ubert_training.pretraining.pretrain_options import PretrainOptions, default_loop, default_trainable_layers
from ubert_training.running.devices import DeviceChoice
from ubert_training.running.stage import plain

READ_BY_PRETRAINING = (
    "backbone",
    "encoder_layers",
    "pretrain_max_length",
    "state_dim",
    "dropout",
    "id_embeddings",
    "scale",
)
"""Fields of a configuration that change what pre-training learns; recipes that agree in them share it."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """``pretraining`` is None for a model that starts from the plain backbone (the paper's U-BERT P−)."""

    config: ModelConfig
    pretraining: PretrainOptions | None
    finetuning: FinetuneOptions

    @classmethod
    def of_preset(cls, name: str, scale: RatingScale) -> Self:
        """What `ubert pretrain` and `ubert finetune` do with that preset, if no flag is given."""
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
        """Inverse of :meth:`to_json`; a part that is left out is that of ``base``, if there is one.

        Raises ``ConfigError`` on what is no recipe.
        """
        parts = [part.name for part in fields(cls)]
        require(isinstance(values, Mapping), "recipe", values, f"write an object of {', '.join(parts)}")
        unknown = sorted(set(values) - set(parts))
        require(not unknown, "recipe", unknown, f"a recipe has no such part, use {', '.join(parts)}")
        values = {**(base.to_json() if base else {}), **values}
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
                f"this is no recipe of this version ({error}): run `ubert tune` again, or mend it"
            ) from error

    def on(self, device: DeviceChoice) -> Self:
        """The same on another device."""
        pretraining = replace(self.pretraining, device=device) if self.pretraining is not None else None
        return replace(self, pretraining=pretraining, finetuning=replace(self.finetuning, device=device))

    def seeded(self, seed: int, *, pretraining_seed: int | None = None) -> Self:
        """The same with every draw from this seed; those of pre-training from one of its own, where one is given."""
        pretraining = self.pretraining
        if pretraining is not None:
            drawn = seed if pretraining_seed is None else pretraining_seed
            pretraining = replace(pretraining, loop=replace(pretraining.loop, seed=drawn))
        finetuning = replace(self.finetuning, loop=replace(self.finetuning.loop, seed=seed))
        return replace(self, pretraining=pretraining, finetuning=finetuning)

    def shortened(self, *, pretrain_epochs: int | None, finetune_epochs: int | None) -> Self:
        """With other numbers of passes; None leaves one as it is."""
        pretraining = self.pretraining
        if pretraining is not None and pretrain_epochs is not None:
            pretraining = replace(pretraining, loop=replace(pretraining.loop, epochs=pretrain_epochs))
        finetuning = self.finetuning
        if finetune_epochs is not None:
            finetuning = replace(finetuning, loop=replace(finetuning.loop, epochs=finetune_epochs))
        return replace(self, pretraining=pretraining, finetuning=finetuning)

    def varied(
        self,
        *,
        model: Mapping[str, Any] | None = None,
        pretraining: Mapping[str, Any] | None = None,
        pretrained: bool = True,
        learning_rate: float | None = None,
    ) -> Self:
        """With other fields of the configuration and of pre-training, or without pre-training at all."""
        options = self.pretraining if pretrained else None
        if options is not None and pretraining:
            options = replace(options, **pretraining)
        finetuning = self.finetuning
        if learning_rate is not None:
            finetuning = replace(finetuning, loop=replace(finetuning.loop, learning_rate=learning_rate))
        return replace(self, config=replace(self.config, **(model or {})), pretraining=options, finetuning=finetuning)

    @property
    def pretraining_config(self) -> ModelConfig:
        """The configuration for pre-training: the preset's, but for what pre-training reads."""
        read = {name: getattr(self.config, name) for name in READ_BY_PRETRAINING}
        return replace(preset(self.config.preset), **read)
