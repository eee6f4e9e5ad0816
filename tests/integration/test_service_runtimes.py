"""The scoring runtimes: which one is chosen, that all rate alike, and how they fail."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import EPFail, Fail, RuntimeException

from support.app_settings import settings_for
from support.tiny_bundle import TinyBundle
from ubert_model.bundle import SCORER_GRAPH, Bundle
from ubert_model.errors import BundleError, ConfigError, DeviceUnavailableError
from ubert_model.nn.devices import has_native_bfloat16
from ubert_model.nn.pair_scorer import PairScorer
from ubert_model.states import FloatMatrix
from ubert_model.states.pooling import pool_neighbours
from ubert_service.scoring import runtime, runtime_choice
from ubert_service.scoring.assembly import ScorerBatch
from ubert_service.scoring.runtime import ActiveDevice, OnnxRuntime
from ubert_service.scoring.runtime_choice import LARGEST_DIFFERENCE, Trial, fastest, trial_batch, try_runtimes
from ubert_service.scoring.torch_runtime import TorchRuntime, device_to_use
from ubert_service.serving.opened import OpenedBundle
from ubert_service.settings import FixedRuntime


class ConstantRuntime:
    """Gives every pair the same rating."""

    device: ActiveDevice = "cpu"

    def __init__(self, stars: float) -> None:
        self._stars = stars

    def score(self, batch: ScorerBatch) -> NDArray[np.float32]:
        return np.full(len(batch.item), self._stars, dtype=np.float32)


class FailingRuntime(ConstantRuntime):
    """Of a GPU that it has no code for."""

    def __init__(self) -> None:
        super().__init__(1.0)

    def score(self, batch: ScorerBatch) -> NDArray[np.float32]:
        raise DeviceUnavailableError("no kernel image is available for execution on the device")


def trial(name: FixedRuntime, seconds: float, difference: float) -> Trial:
    return Trial(name=name, runtime=ConstantRuntime(0.0), seconds=seconds, difference=difference)


def opened_by(tiny: TinyBundle, **settings: object) -> OpenedBundle:
    return OpenedBundle.open(settings_for(tiny.bundle, **settings))


def test_the_fastest_runtime_is_chosen_among_those_that_agree_with_the_graph() -> None:
    exact, equal = trial("onnx", 3.0, 0.0), trial("torch", 2.0, LARGEST_DIFFERENCE)
    rough = trial("torch-bf16", 1.0, 1.01 * LARGEST_DIFFERENCE)
    assert fastest([exact, equal, rough]) is equal
    assert fastest([exact, rough]) is exact


def test_a_trial_reports_the_largest_difference_from_the_graph(tiny: TinyBundle) -> None:
    batch = trial_batch(tiny.bundle, opened_by(tiny).encoder)
    trials = try_runtimes({"onnx": ConstantRuntime(3.0), "torch": ConstantRuntime(3.25)}, batch)
    assert [(one.name, one.difference) for one in trials] == [("onnx", 0.0), ("torch", 0.25)]
    assert all(one.seconds > 0 for one in trials)


def test_a_runtime_that_the_device_fails_is_not_tried(tiny: TinyBundle, caplog: pytest.LogCaptureFixture) -> None:
    batch = trial_batch(tiny.bundle, opened_by(tiny).encoder)
    trials = try_runtimes({"onnx": ConstantRuntime(3.0), "torch": FailingRuntime()}, batch)
    assert [one.name for one in trials] == ["onnx"]
    assert "runtime torch is not tried: no kernel image" in caplog.text
    with pytest.raises(DeviceUnavailableError, match="no kernel image"):
        try_runtimes({"onnx": FailingRuntime(), "torch": ConstantRuntime(3.0)}, batch)


def test_without_memory_on_the_gpu_auto_is_onnx_runtime(tiny: TinyBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_memory(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("ubert_service.scoring.torch_runtime.chosen_device", lambda _: "cuda")
    monkeypatch.setattr(torch.nn.Module, "to", without_memory)
    with pytest.raises(DeviceUnavailableError, match="cuda failed while getting ready: CUDA out of memory"):
        opened_by(tiny, runtime="torch")
    assert isinstance(opened_by(tiny, runtime="auto").runtime, OnnxRuntime)


@pytest.mark.parametrize("error", [EPFail("CUDA failure"), Fail("no memory"), RuntimeException("no memory")])
def test_a_graph_that_the_gpu_cannot_open_is_no_bad_bundle(
    tiny: TinyBundle, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    graph = tiny.bundle.file(SCORER_GRAPH)
    monkeypatch.setattr(onnxruntime, "InferenceSession", fail)
    with pytest.raises(BundleError, match="export the bundle again"):
        OnnxRuntime(graph, device="cpu", threads=1)
    monkeypatch.setattr(runtime, "providers_to_ask", lambda *_, **__: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    with pytest.raises(DeviceUnavailableError, match="free its memory, or use --device cpu"):
        OnnxRuntime(graph, device="auto", threads=1)


def test_the_trial_batch_has_the_bundles_shape_and_real_states(tiny: TinyBundle) -> None:
    opened = opened_by(tiny)
    config = tiny.bundle.manifest.config
    batch = trial_batch(tiny.bundle, opened.encoder)
    assert batch.user_side.states.shape == (1, config.max_rows, config.state_dim)
    assert batch.item_side.mask.sum(axis=1).tolist() == [config.max_rows - pair for pair in range(4)]
    assert len(np.unique(batch.item_side.states[:, 0], axis=0)) == 4
    assert batch.item_side.states.std() > 0.01


@pytest.mark.parametrize(
    "shape",
    [
        {"max_length": 96, "tokens_a_row": 16, "max_rows": 256},
        {"max_length": 3, "tokens_a_row": 64, "max_rows": 3},
        {"max_length": 3, "tokens_a_row": 64, "max_rows": 2},
    ],
    ids=["as the preset minilm", "three rows a side", "two rows a side"],
)
def test_the_trial_batch_repeats_no_row_if_states_are_pooled(tiny: TinyBundle, shape: dict[str, int]) -> None:
    config = tiny.bundle.manifest.config.with_options(**shape)
    random = np.random.default_rng(1)

    class Encoder:
        def encode(self, text: str) -> FloatMatrix:
            states = random.normal(size=(config.max_length, 8)).astype(np.float32)
            return pool_neighbours(states, config.tokens_a_row)

    bundle = Bundle(tiny.bundle.path, replace(tiny.bundle.manifest, config=config))
    batch = trial_batch(bundle, Encoder())
    assert len(np.unique(batch.user_side.states[0], axis=0)) == config.max_rows
    assert batch.item_side.mask.sum(axis=1).tolist() == [max(1, config.max_rows - pair) for pair in range(4)]


@pytest.mark.parametrize(("name", "tolerance"), [("torch", 1e-5), ("torch-bf16", 0.15), ("auto", LARGEST_DIFFERENCE)])
def test_every_runtime_rates_as_the_graph_does(tiny: TinyBundle, name: str, tolerance: float) -> None:
    if name == "torch-bf16" and not has_native_bfloat16(torch.device("cpu")):
        pytest.skip("this CPU only emulates bfloat16")
    opened = opened_by(tiny, runtime=name)
    batch = trial_batch(tiny.bundle, opened.encoder)
    pairs = replace(  # each with a user of its own
        batch, user=np.repeat(batch.user, len(batch.item)), user_side=batch.item_side
    )
    for each in (batch, pairs):
        expected = opened_by(tiny).runtime.score(each)
        assert np.ptp(expected) > 0
        np.testing.assert_allclose(opened.runtime.score(each), expected, rtol=0, atol=tolerance)
    assert opened.runtime.device == "cpu"


def test_states_resident_on_the_device_rate_as_states_of_the_batch(tiny: TinyBundle) -> None:
    batch = trial_batch(tiny.bundle, opened_by(tiny).encoder)
    runtimes = [
        TorchRuntime(tiny.bundle, device="cpu", threads=1, bfloat16=False, resident_bytes=resident_bytes)
        for resident_bytes in (0, 64, 1 << 20)
    ]
    not_resident, too_large, resident = (runtime.score(batch) for runtime in runtimes)
    resident_again = runtimes[-1].score(batch)
    assert not_resident.tolist() == too_large.tolist() == resident.tolist() == resident_again.tolist()


def test_bfloat16_is_refused_where_it_would_be_emulated(tiny: TinyBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    with pytest.raises(ConfigError, match="only emulates bfloat16"):
        opened_by(tiny, runtime="torch-bf16")


def test_weights_of_another_shape_are_refused_and_their_file_is_named(tiny: TinyBundle) -> None:
    manifest = replace(tiny.bundle.manifest, state_dim=tiny.bundle.manifest.state_dim + 1)
    with pytest.raises(BundleError, match=r"model\.safetensors cannot be loaded"):
        TorchRuntime(Bundle(tiny.bundle.path, manifest), device="cpu", threads=1, bfloat16=False)


def test_without_torch_auto_is_onnx_runtime_and_torch_is_refused(
    tiny: TinyBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_choice, "find_spec", lambda name: None)
    assert isinstance(opened_by(tiny, runtime="auto").runtime, OnnxRuntime)
    with pytest.raises(ConfigError, match=r"u-bert\[torch\]"):
        opened_by(tiny, runtime="torch")


def test_torch_on_cuda_is_refused_without_a_gpu() -> None:
    with pytest.raises(DeviceUnavailableError, match="sees no GPU"):
        device_to_use("cuda", has_cuda=False)
    assert device_to_use("auto", has_cuda=False) == device_to_use("cpu", has_cuda=True) == "cpu"
    assert device_to_use("auto", has_cuda=True) == device_to_use("cuda", has_cuda=True) == "cuda"


@pytest.mark.parametrize(
    ("name", "computation", "error"),
    [
        ("onnx", (onnxruntime.InferenceSession, "run"), EPFail("CUDA failure 700: an illegal memory access")),
        ("onnx", (onnxruntime.InferenceSession, "run"), Fail("CUDA failure 2: out of memory")),
        ("onnx", (onnxruntime.InferenceSession, "run"), RuntimeException("CUDA: failed to allocate memory")),
        ("torch", (PairScorer, "forward"), torch.OutOfMemoryError("CUDA out of memory")),
        ("torch", (PairScorer, "forward"), torch.AcceleratorError("CUDA error: device-side assert triggered")),
        ("torch", (PairScorer, "forward"), RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED")),
    ],
)
def test_a_failure_while_computing_is_a_device_unavailable_error(
    tiny: TinyBundle, monkeypatch: pytest.MonkeyPatch, name: str, computation: tuple[type, str], error: Exception
) -> None:
    """Only a GPU fails like this, so the library's own method is replaced by one that raises its error."""
    monkeypatch.setattr(onnxruntime.InferenceSession, "get_providers", lambda _: ["CUDAExecutionProvider"])
    opened = opened_by(tiny, runtime=name)
    monkeypatch.setattr(opened.runtime, "device", "cuda")  # torch asks no session
    batch = trial_batch(tiny.bundle, opened.encoder)

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(*computation, fail)
    with pytest.raises(DeviceUnavailableError, match=r"failed while computing: .*CUDA"):
        opened.runtime.score(batch)


@pytest.mark.parametrize(
    ("name", "computation", "error"),
    [
        ("onnx", (onnxruntime.InferenceSession, "run"), Fail("a bug")),
        ("onnx", (onnxruntime.InferenceSession, "run"), RuntimeException("a bug")),
        ("torch", (PairScorer, "forward"), RuntimeError("a bug")),
    ],
)
def test_on_a_cpu_a_failure_while_computing_is_not_taken_for_one_of_the_device(
    tiny: TinyBundle, monkeypatch: pytest.MonkeyPatch, name: str, computation: tuple[type, str], error: Exception
) -> None:
    opened = opened_by(tiny, runtime=name)
    batch = trial_batch(tiny.bundle, opened.encoder)

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(*computation, fail)
    with pytest.raises(type(error), match="a bug"):
        opened.runtime.score(batch)


@pytest.fixture
def torch_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("torch_threads")
def test_a_runtime_computes_with_the_given_number_of_threads(tiny: TinyBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[onnxruntime.SessionOptions] = []

    open_session = onnxruntime.InferenceSession

    def recorded(path: Path, options: onnxruntime.SessionOptions, **given: Any) -> onnxruntime.InferenceSession:
        opened.append(options)
        return open_session(path, options, **given)

    monkeypatch.setattr(onnxruntime, "InferenceSession", recorded)
    opened_by(tiny, runtime="onnx", threads=2)
    assert [options.intra_op_num_threads for options in opened] == [2] * len(opened) != []
    assert not any(options.enable_mem_pattern for options in opened), "nearly every batch would cache a memory plan"
    torch.set_num_threads(1)
    opened_by(tiny, runtime="torch", threads=0)
    assert torch.get_num_threads() == 1
    opened_by(tiny, runtime="torch", threads=2)
    assert torch.get_num_threads() == 2
