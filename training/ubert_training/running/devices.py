"""The device and the precision of training."""

from datetime import timedelta
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, InitProcessGroupKwargs

from ubert_model.errors import ConfigError, DeviceUnavailableError
from ubert_model.nn.devices import has_native_bfloat16
from ubert_model.validation import require_choice

DeviceChoice = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16"]

_SHARDED_MODELS = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)
_LONGEST_WAIT = timedelta(hours=24)
"""How long processes wait for the main one, which encodes all reviews before the others read their states."""


def make_accelerator(device: DeviceChoice) -> Accelerator:
    """An accelerator for this process, alone or one of several under ``accelerate launch`` or ``torchrun``.

    Raises ``DeviceUnavailableError`` if CUDA was asked for and there is no GPU: never falls back silently. Raises
    ``ConfigError`` for an unknown device, and if the launcher asks for a sharded model, which our checkpoints do not
    support.
    """
    require_choice("device", device, DeviceChoice)
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceUnavailableError("device = 'cuda': torch finds no GPU; use --device cpu, or repair the GPU driver")
    # Without CUDA, accelerate joins the processes of torchrun only if it is told to use CPUs.
    several_on_cpus = torch.distributed.is_torchelastic_launched() and not torch.cuda.is_available()
    accelerator = Accelerator(
        cpu=device == "cpu" or several_on_cpus,
        mixed_precision="no",  # left out, it would be whatever the launcher was configured for
        kwargs_handlers=[InitProcessGroupKwargs(backend=None, timeout=_LONGEST_WAIT)],
    )
    if accelerator.distributed_type in _SHARDED_MODELS:
        raise ConfigError(
            f"distributed_type = {accelerator.distributed_type.value}: every process must hold the whole model; "
            "launch with plain data parallelism, and with --shard-optimizer to shard the optimizer's states"
        )
    return accelerator


def uses_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Whether to compute in bfloat16. ``auto``: if the device supports it in hardware.

    Raises ``ConfigError`` if it was asked for on a device that would have to emulate it, many times slower.
    """
    native = has_native_bfloat16(device)
    if precision == "bf16" and not native:
        raise ConfigError(f"precision = 'bf16': this {device.type} only emulates bfloat16; use fp32 or auto")
    return native and precision != "fp32"
