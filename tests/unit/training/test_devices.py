"""A device is taken as it was asked for."""

import pytest

from ubert_model.errors import ConfigError
from ubert_training.running.devices import make_accelerator


@pytest.mark.parametrize("name", ["gpu", "CUDA", "cuda:0", ""])
def test_a_device_of_another_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"device = '{name}': use one of 'auto', 'cpu', 'cuda'"):
        make_accelerator(name)  # type: ignore[arg-type]


def test_the_cpu_can_be_asked_for() -> None:
    assert make_accelerator("cpu").device.type == "cpu"
