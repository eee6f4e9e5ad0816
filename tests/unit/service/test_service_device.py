"""Which execution providers are requested and which device is reported; needs no GPU."""

import pytest

from ubert_model.errors import DeviceUnavailableError
from ubert_service.scoring.runtime import active_device, providers_to_ask, require_tensorrt
from ubert_service.settings import Device

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
WITH_CUDA = [TENSORRT, CUDA, CPU]


@pytest.mark.parametrize("available", [[CPU], WITH_CUDA])
@pytest.mark.parametrize("has_driver", [True, False])
def test_cpu_requests_the_cpu_alone(available: list[str], has_driver: bool) -> None:
    assert providers_to_ask("cpu", available, has_driver=has_driver) == [CPU]


@pytest.mark.parametrize(
    ("available", "has_driver", "requested"),
    [(WITH_CUDA, True, [CUDA, CPU]), (WITH_CUDA, False, [CPU]), ([CPU], True, [CPU]), ([CPU], False, [CPU])],
)
def test_auto_requests_cuda_only_if_the_build_has_it_and_the_machine_has_a_driver(
    available: list[str], has_driver: bool, requested: list[str]
) -> None:
    assert providers_to_ask("auto", available, has_driver=has_driver) == requested


def test_cuda_is_requested_even_without_a_driver() -> None:
    assert providers_to_ask("cuda", WITH_CUDA, has_driver=False) == [CUDA, CPU]


def test_cuda_is_refused_by_a_build_without_it() -> None:
    with pytest.raises(DeviceUnavailableError, match="onnxruntime-gpu"):
        providers_to_ask("cuda", [CPU], has_driver=True)


def test_a_session_that_silently_fell_back_to_the_cpu_is_refused_if_cuda_was_requested() -> None:
    with pytest.raises(DeviceUnavailableError, match=CPU):
        active_device("cuda", [CPU])
    assert active_device("auto", [CPU]) == "cpu"
    assert active_device("cuda", [CUDA, CPU]) == active_device("auto", [CUDA, CPU]) == "cuda"


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_tensorrt_is_requested_before_cuda(device: Device) -> None:
    assert providers_to_ask(device, WITH_CUDA, has_driver=True, tensorrt=True) == [TENSORRT, CUDA, CPU]


@pytest.mark.parametrize(
    ("device", "available", "has_driver"),
    [("cpu", WITH_CUDA, True), ("auto", WITH_CUDA, False), ("cuda", [CUDA, CPU], True), ("auto", [CUDA, CPU], True)],
)
def test_tensorrt_is_refused_where_it_is_unavailable(device: Device, available: list[str], has_driver: bool) -> None:
    with pytest.raises(DeviceUnavailableError, match="use --runtime onnx"):
        providers_to_ask(device, available, has_driver=has_driver, tensorrt=True)


def test_a_session_that_silently_does_without_tensorrt_is_refused() -> None:
    require_tensorrt([TENSORRT, CUDA, CPU])
    with pytest.raises(DeviceUnavailableError, match="TensorRT's libraries"):
        require_tensorrt([CUDA, CPU])
