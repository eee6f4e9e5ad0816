"""Selection of the device, and of the precision that it computes in."""

from types import SimpleNamespace

import pytest
import torch

from ubert_model.errors import ConfigError
from ubert_training.running.devices import make_accelerator, uses_bfloat16


@pytest.mark.parametrize("name", ["gpu", "CUDA", "cuda:0", ""])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"device = '{name}': use one of 'auto', 'cpu', 'cuda'"):
        make_accelerator(name)  # type: ignore[arg-type]


def test_the_cpu_can_be_selected() -> None:
    assert make_accelerator("cpu").device.type == "cpu"


@pytest.mark.parametrize(("capability", "native"), [(7, False), (8, True), (9, True)])
def test_a_gpu_that_only_emulates_bfloat16_trains_in_fp32(
    capability: int, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(major=capability))
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda _: True)  # by emulation, from capability 5
    assert uses_bfloat16("auto", device) is native
    if not native:
        with pytest.raises(ConfigError, match="precision = 'bf16': this cuda only emulates bfloat16"):
            uses_bfloat16("bf16", device)
