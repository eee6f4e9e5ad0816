"""Which device and which precision training runs in."""

from typing import Literal

import torch
from accelerate import Accelerator

from ubert_model.errors import ConfigError, DeviceUnavailableError
from ubert_model.nn.devices import has_native_bfloat16

DeviceChoice = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16"]


def make_accelerator(device: DeviceChoice) -> Accelerator:
    """One process, or one of many under ``accelerate launch`` or ``torchrun``.

    Raises ``DeviceUnavailableError`` if CUDA was asked for and is not there: never a silent fallback.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceUnavailableError("device = 'cuda': torch sees no GPU here; use --device cpu, or mend the driver")
    return Accelerator(cpu=device == "cpu")


def uses_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Whether to compute in bfloat16. ``auto``: where the device does it in hardware.

    Raises ``ConfigError`` if it was asked for on a CPU that would have to emulate it, many times slower.
    """
    native = has_native_bfloat16(device)
    if precision == "bf16" and not native:
        raise ConfigError(f"precision = 'bf16': this {device.type} computes it only by emulation; use fp32 or auto")
    return native and precision != "fp32"
