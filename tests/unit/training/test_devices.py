"""Selection of the device."""

import pytest

from ubert_model.errors import ConfigError
from ubert_training.running.devices import make_accelerator


@pytest.mark.parametrize("name", ["gpu", "CUDA", "cuda:0", ""])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"device = '{name}': use one of 'auto', 'cpu', 'cuda'"):
        make_accelerator(name)  # type: ignore[arg-type]


def test_the_cpu_can_be_selected() -> None:
    assert make_accelerator("cpu").device.type == "cpu"
