"""Chooses the scoring runtime: the one in the settings, or the fastest as measured on this machine."""

import logging
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from ubert_model.bundle import SCORER_GRAPH, Bundle
from ubert_model.errors import ConfigError, DeviceUnavailableError
from ubert_model.states import FloatMatrix
from ubert_service.scoring.assembly import BatchSide, ScorerBatch
from ubert_service.scoring.encoding import ReviewEncoding
from ubert_service.scoring.runtime import OnnxRuntime, ScoringRuntime
from ubert_service.settings import FixedRuntime, Settings

_log = logging.getLogger(__name__)

LARGEST_DIFFERENCE = 0.005
"""In stars: half of the last digit that a person sees. ``auto`` never chooses a runtime that differs from the graph by
more on any pair of the trial."""
_PAIRS = 4
_REPEATS = 5
_WORDS = "the a it is was very good great poor sound tone string strap pedal case price for my with not and love works"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A runtime, its seconds per pair, and the largest difference of its outputs from the graph's, in stars."""

    name: FixedRuntime
    runtime: ScoringRuntime
    seconds: float
    difference: float


def open_runtime(settings: Settings, bundle: Bundle, encoder: ReviewEncoding) -> ScoringRuntime:
    """The runtime of the settings; ``auto`` measures all that can be opened here and logs the results.

    Raises ``ConfigError`` if torch is asked for and not installed, or would only emulate bfloat16, and
    ``DeviceUnavailableError`` and ``BundleError`` as the runtimes do.
    """
    if settings.runtime != "auto":
        return _open(settings.runtime, settings, bundle)
    runtimes: dict[FixedRuntime, ScoringRuntime] = {"onnx": _open("onnx", settings, bundle)}
    others: tuple[FixedRuntime, ...] = ("torch", "torch-bf16")
    for name in others:
        try:
            runtimes[name] = _open(name, settings, bundle)
        except (ConfigError, DeviceUnavailableError) as error:
            _log.info("runtime %s is not tried: %s", name, error)
    if len(runtimes) == 1:
        return runtimes["onnx"]
    trials = try_runtimes(runtimes, trial_batch(bundle, encoder))
    chosen = fastest(trials)
    for trial in trials:
        _log.info(
            "runtime %s: %.3f ms a pair, at most %.5f stars from the graph%s",
            *(trial.name, 1e3 * trial.seconds, trial.difference),
            ", chosen" if trial is chosen else "",
        )
    return chosen.runtime


def fastest(trials: Sequence[Trial]) -> Trial:
    """The fastest trial that agrees with the graph. There is always one: the graph agrees with itself."""
    return min((trial for trial in trials if trial.difference <= LARGEST_DIFFERENCE), key=lambda trial: trial.seconds)


def try_runtimes(runtimes: Mapping[FixedRuntime, ScoringRuntime], batch: ScorerBatch) -> list[Trial]:
    """Run all on the same batch, interleaved, so that other load on the machine affects all alike.

    One that the device fails is left out. Raises ``DeviceUnavailableError`` if that is ``onnx``.
    """
    outputs: dict[FixedRuntime, NDArray[np.float32]] = {}
    for name, runtime in runtimes.items():
        try:
            outputs[name] = runtime.score(batch)  # also warms it up
        except DeviceUnavailableError as error:
            if name == "onnx":
                raise
            _log.warning("runtime %s is not tried: %s", name, error)
    working = {name: runtimes[name] for name in outputs}
    seconds: dict[FixedRuntime, list[float]] = {name: [] for name in working}
    for _ in range(_REPEATS):
        for name, runtime in working.items():
            started = time.perf_counter()
            runtime.score(batch)
            seconds[name].append((time.perf_counter() - started) / len(batch.item))
    return [
        Trial(
            name=name,
            runtime=runtime,
            seconds=statistics.median(seconds[name]),
            difference=float(np.abs(outputs[name] - outputs["onnx"]).max()),
        )
        for name, runtime in working.items()
    ]


def trial_batch(bundle: Bundle, encoder: ReviewEncoding) -> ScorerBatch:
    """One user against some items, with sides as long as the bundle allows, made of words drawn with a fixed seed.

    The bundle's own encoder makes the states, because rounding errors depend on their real magnitude.
    """
    config = bundle.manifest.config
    draw = np.random.default_rng(0)
    reviews = 1 + config.max_rows // config.rows_a_review
    texts = [" ".join(draw.choice(_WORDS.split(), config.max_length)) for _ in range(reviews)]
    rows = np.concatenate([encoder.encode(text) for text in texts])
    return ScorerBatch(
        user=np.zeros(1, dtype=np.int64),
        item=np.zeros(_PAIRS, dtype=np.int64),
        domain=np.zeros(_PAIRS, dtype=np.int64),
        user_side=_trial_side(rows, [config.max_rows]),
        item_side=_trial_side(rows, [max(1, config.max_rows - pair) for pair in range(_PAIRS)]),
    )


def _trial_side(rows: FloatMatrix, lengths: Sequence[int]) -> BatchSide:
    """Entities of these lengths, as reviews of one row each; every entity starts at another of the rows (R, D)."""
    starts = np.arange(len(lengths)) * (len(rows) // len(lengths))
    turned = [np.resize(np.roll(rows, -start, axis=0), (max(lengths), rows.shape[1])) for start in starts]
    residuals = np.linspace(-1, 1, max(lengths), dtype=np.float32)
    return BatchSide(
        reviews=[list(states[:length, None]) for states, length in zip(turned, lengths, strict=True)],
        review_residuals=[residuals[:length] for length in lengths],
    )


def _open(name: FixedRuntime, settings: Settings, bundle: Bundle) -> ScoringRuntime:
    if name in ("onnx", "onnx-tensorrt"):
        tensorrt = name == "onnx-tensorrt"
        graph = bundle.file(SCORER_GRAPH)
        return OnnxRuntime(graph, device=settings.device, threads=settings.threads, tensorrt=tensorrt)
    if find_spec("torch") is None:
        raise ConfigError(f"runtime = {name!r}: torch is not installed; pip install 'u-bert[torch]', or use onnx")
    from ubert_service.scoring.torch_runtime import TorchRuntime, chosen_device  # noqa: PLC0415  # serving needs no torch

    return TorchRuntime(
        bundle,
        device=settings.device,
        threads=settings.threads,
        bfloat16=name == "torch-bf16",
        # On a CPU the residents' own arrays are already in place.
        resident_bytes=settings.resident_bytes if chosen_device(settings.device) == "cuda" else 0,
    )
