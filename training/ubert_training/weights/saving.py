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


def save_weights(model: nn.Module, path: Path) -> None:
    """Write all weights; the file appears complete or not at all. Raises ``OSError`` if the disk is full."""
    with translated_write_errors(path, SafetensorError), replacing(path) as partial:
        save_file(weights_of(model), partial)


def submodule_weights(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights of one submodule, without its prefix."""
    return {name[len(prefix) + 1 :]: tensor for name, tensor in weights.items() if name.startswith(f"{prefix}.")}
