"""What a device computes in hardware."""

import torch

_CPU_BFLOAT16 = ("avx512_bf16", "amx_bf16")


def has_native_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware; emulation is many times slower."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and any(torch.cpu.get_capabilities().get(name) for name in _CPU_BFLOAT16)
