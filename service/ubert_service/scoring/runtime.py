"""Where a graph runs: ONNX Runtime, on the device that was asked for or not at all."""

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import gettempdir
from typing import Literal, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import EPFail

from ubert_model.errors import BundleError, DeviceUnavailableError
from ubert_service.scoring.assembly import ScorerBatch
from ubert_service.settings import Device

ActiveDevice = Literal["cpu", "cuda"]
_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_TENSORRT = "TensorrtExecutionProvider"
_CUDA_DRIVER = "libcuda.so.1"


class ScoringRuntime(Protocol):
    """Computes the network's output. Thread-safe."""

    def device(self) -> ActiveDevice:
        """Where it computes now. Raises ``DeviceUnavailableError`` if that is not where it was asked to."""

    def score(self, batch: ScorerBatch) -> NDArray[np.float32]:
        """Network outputs of B pairs: (B,), in stars.

        Raises ``DeviceUnavailableError`` if the device stops working.
        """


def providers_to_ask(
    device: Device, available: Sequence[str], *, has_driver: bool, tensorrt: bool = False
) -> list[str]:
    """The execution providers to create a session with, preferred first.

    ``available`` tells what this build of ONNX Runtime contains, not what can start; so ``auto`` also wants the
    driver of a GPU on this machine. Raises ``DeviceUnavailableError`` if ``cuda`` is asked for and this build has
    no CUDA provider, or ``tensorrt`` where it has none or the CPU is what is left.
    """
    if device == "cpu" or (device == "auto" and not (has_driver and _CUDA in available)):
        if tensorrt:
            raise DeviceUnavailableError(
                "runtime onnx-tensorrt: it computes on a GPU only, and none is to be used here; use --runtime onnx"
            )
        return [_CPU]
    if _CUDA not in available:
        raise DeviceUnavailableError(
            f"device cuda: this ONNX Runtime offers {', '.join(available)} only; "
            "install onnxruntime-gpu, or use --device cpu"
        )
    if not tensorrt:
        return [_CUDA, _CPU]
    if _TENSORRT not in available:
        raise DeviceUnavailableError(
            f"runtime onnx-tensorrt: this ONNX Runtime offers {', '.join(available)} only; use --runtime onnx"
        )
    return [_TENSORRT, _CUDA, _CPU]


def active_device(asked: Device, providers: Sequence[str]) -> ActiveDevice:
    """The device of a session by the providers that it really has.

    A session is created without complaint when CUDA cannot start, so the answer to ``cuda`` is checked here:
    raises ``DeviceUnavailableError`` if it fell back to the CPU.
    """
    if _CUDA in providers:
        return "cuda"
    if asked == "cuda":
        raise DeviceUnavailableError(
            f"device cuda: the session runs on {', '.join(providers)}; make a GPU, its driver, CUDA and cuDNN "
            "visible to this process, or use --device cpu"
        )
    return "cpu"


def require_tensorrt(providers: Sequence[str]) -> None:
    """Raise ``DeviceUnavailableError`` if a session that was to use TensorRT does without it, which it never says."""
    if _TENSORRT not in providers:
        raise DeviceUnavailableError(
            f"runtime onnx-tensorrt: the session runs on {', '.join(providers)}; make TensorRT's libraries visible to "
            "this process, or use --runtime onnx"
        )


class OnnxGraph:
    """One of a bundle's graphs in an ONNX Runtime session. Thread-safe.

    ``threads`` bounds the intra-op threads; 0 leaves the number to ONNX Runtime. ``tensorrt``: on a GPU, by engines
    that TensorRT builds when shapes outside of those before come for the first time, and keeps in the temporary
    directory. Raises ``DeviceUnavailableError`` if ``cuda`` or TensorRT was asked for and is not what the session got,
    ``BundleError`` if the graph cannot be loaded.
    """

    def __init__(self, path: Path, *, device: Device, threads: int, tensorrt: bool = False) -> None:
        self._asked = device
        available = onnxruntime.get_available_providers()
        providers = providers_to_ask(device, available, has_driver=_has_cuda_driver(), tensorrt=tensorrt)
        self._session = _open_session(path, providers, threads)
        active_device(device, self._session.get_providers())
        if tensorrt:
            require_tensorrt(self._session.get_providers())

    def device(self) -> ActiveDevice:
        """Where it computes now. Raises ``DeviceUnavailableError`` if that is not where it was asked to."""
        return active_device(self._asked, self._session.get_providers())

    def run(self, output: str, inputs: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float32]:
        """One output of the graph. Raises ``DeviceUnavailableError`` if the device stops working."""
        return self.run_all([output], inputs)[0]

    def run_all(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[np.generic]]) -> list[NDArray[np.float32]]:
        """Several outputs of one run. Raises as :meth:`run` does."""
        try:
            computed: list[NDArray[np.float32]] = self._session.run(list(outputs), dict(inputs))
        except EPFail as error:
            raise DeviceUnavailableError(f"device {self._asked} failed while computing: {error}") from error
        return computed


class OnnxRuntime:
    """A ``ScoringRuntime`` over the scorer graph. Raises as :class:`OnnxGraph` does."""

    def __init__(self, graph: Path, *, device: Device, threads: int, tensorrt: bool = False) -> None:
        self._graph = OnnxGraph(graph, device=device, threads=threads, tensorrt=tensorrt)

    def device(self) -> ActiveDevice:
        return self._graph.device()

    def score(self, batch: ScorerBatch) -> NDArray[np.float32]:
        return self._graph.run("rating", batch.graph_inputs())


def _open_session(graph: Path, providers: list[str], threads: int) -> onnxruntime.InferenceSession:
    onnxruntime.disable_telemetry_events()  # nothing about a request leaves this process but the answer
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # It would remember a plan for every new combination of shapes, and requests never stop bringing new ones.
    options.enable_mem_pattern = False
    if _CUDA in providers:
        onnxruntime.preload_dlls()  # finds CUDA and cuDNN that were installed as Python packages
    try:
        session = onnxruntime.InferenceSession(
            graph, options, providers=providers, provider_options=[_provider_options(name) for name in providers]
        )
    except Exception as error:  # its exceptions have no common base
        raise BundleError(f"{graph} cannot be loaded: {error}; export the bundle again") from error
    # Else an error on the GPU would move the session to the CPU, and nobody would know.
    session.disable_fallback()
    return session


def _provider_options(provider: str) -> dict[str, str]:
    if provider == _TENSORRT:
        return {"trt_engine_cache_enable": "1", "trt_engine_cache_path": gettempdir()}
    return {}


def _has_cuda_driver() -> bool:
    try:
        ctypes.CDLL(_CUDA_DRIVER)
    except OSError:
        return False
    return True
