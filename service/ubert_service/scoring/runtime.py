"""Runs graphs in ONNX Runtime, on the device that was asked for or not at all."""

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import EPFail, Fail, RuntimeException

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

    @property
    def device(self) -> ActiveDevice:
        """The device in use."""

    def score(self, batch: ScorerBatch) -> NDArray[np.float32]:
        """Network outputs of B pairs: (B,), in stars.

        Raises ``DeviceUnavailableError`` if the device stops working.
        """


def providers_to_ask(
    device: Device, available: Sequence[str], *, has_driver: bool, tensorrt: bool = False
) -> list[str]:
    """The execution providers to create a session with, preferred first.

    ``available`` lists what this build of ONNX Runtime contains, not what can start; so ``auto`` also requires a GPU
    driver on this machine. Raises ``DeviceUnavailableError`` if ``cuda`` is asked for and this build has no CUDA
    provider, or if ``tensorrt`` is asked for and the build has none or only the CPU is left.
    """
    if device == "cpu" or (device == "auto" and not (has_driver and _CUDA in available)):
        if tensorrt:
            raise DeviceUnavailableError(
                "runtime onnx-tensorrt: it needs a GPU, but the device is cpu or no GPU works; use --runtime onnx"
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
    """The device of a session, by the providers that it really has.

    ONNX Runtime creates a session silently even if CUDA cannot start, so this checks: it raises
    ``DeviceUnavailableError`` if ``cuda`` was asked for and the session fell back to the CPU.
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
    """Raise ``DeviceUnavailableError`` if a session has silently fallen back from TensorRT."""
    if _TENSORRT not in providers:
        raise DeviceUnavailableError(
            f"runtime onnx-tensorrt: the session runs on {', '.join(providers)}; make TensorRT's libraries visible to "
            "this process, or use --runtime onnx"
        )


class OnnxGraph:
    """One of a bundle's graphs in an ONNX Runtime session. Thread-safe.

    ``threads`` bounds the intra-op threads; 0 leaves the number to ONNX Runtime. ``tensorrt``: run on a GPU with
    TensorRT engines, which are built when shapes leave the range seen so far, and anew after each start.
    Raises ``DeviceUnavailableError`` if ``cuda`` or TensorRT was asked for and the session did not get it,
    ``BundleError`` if the graph cannot be loaded.
    """

    def __init__(self, path: Path, *, device: Device, threads: int, tensorrt: bool = False) -> None:
        available = onnxruntime.get_available_providers()
        providers = providers_to_ask(device, available, has_driver=_has_cuda_driver(), tensorrt=tensorrt)
        self._session = _open_session(path, providers, threads)
        self.device = active_device(device, self._session.get_providers())
        if tensorrt:
            require_tensorrt(self._session.get_providers())

    def run(self, output: str, inputs: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float32]:
        """One output of the graph. Raises ``DeviceUnavailableError`` if the device stops working."""
        return self.run_all([output], inputs)[0]

    def run_all(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[np.generic]]) -> list[NDArray[np.float32]]:
        """Several outputs of one run. Raises as :meth:`run` does."""
        try:
            computed: list[NDArray[np.float32]] = self._session.run(list(outputs), dict(inputs))
        except (EPFail, Fail, RuntimeException) as error:
            # On a GPU these may be failures of the device, such as for want of memory; on a CPU they are bugs.
            if self.device == "cpu":
                raise
            raise DeviceUnavailableError(f"device cuda failed while computing: {error}") from error
        return computed


class OnnxRuntime:
    """A ``ScoringRuntime`` over the scorer graph. Raises as :class:`OnnxGraph` does."""

    def __init__(self, graph: Path, *, device: Device, threads: int, tensorrt: bool = False) -> None:
        self._graph = OnnxGraph(graph, device=device, threads=threads, tensorrt=tensorrt)
        self.device = self._graph.device

    def score(self, batch: ScorerBatch) -> NDArray[np.float32]:
        return self._graph.run("rating", batch.graph_inputs())


def _open_session(graph: Path, providers: list[str], threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # It would cache a memory plan for every combination of shapes, and requests never stop bringing new ones.
    options.enable_mem_pattern = False
    if _CUDA in providers:
        onnxruntime.preload_dlls()  # finds CUDA and cuDNN where they are Python packages
    try:
        # No cache of TensorRT's engines: it names them by structure, so that a bundle would get the weights of another.
        session = onnxruntime.InferenceSession(graph, options, providers=providers)
    except Exception as error:  # its exceptions have no common base
        if _CUDA in providers and isinstance(error, EPFail | Fail | RuntimeException):
            raise DeviceUnavailableError(
                f"device cuda cannot open {graph}: {error}; free its memory, or use --device cpu"
            ) from error
        raise BundleError(f"{graph} cannot be loaded: {error}; export the bundle again") from error
    # Otherwise an error on the GPU would silently move the session to the CPU.
    session.disable_fallback()
    return session


def _has_cuda_driver() -> bool:
    try:
        ctypes.CDLL(_CUDA_DRIVER)
    except OSError:
        return False
    return True
