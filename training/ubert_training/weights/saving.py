"""A model's weights: collected, written to a file, and those of a submodule."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from ubert_model.running.atomic import replacing
from ubert_training.running.disk import translated_write_errors


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """All weights, on the CPU: copied from another device, else shared with the model."""
    return {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}


def trainable_weights_of(model: nn.Module) -> dict[str, Tensor]:
    """The weights that training changes, on the CPU as those of :func:`weights_of`."""
    return {name: weight.detach().cpu() for name, weight in model.named_parameters() if weight.requires_grad}


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write weights; the file appears complete or not at all. Raises ``OSError`` if the disk is full."""
    with translated_write_errors(path, SafetensorError), replacing(path) as partial:
        save_file(dict(weights), partial)


def submodule_weights(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights of one submodule, without its prefix."""
    return {name[len(prefix) + 1 :]: tensor for name, tensor in weights.items() if name.startswith(f"{prefix}.")}
