"""The torch ``ScoringRuntime``. Imported on demand only; beside ``device_states``, no other module imports torch."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ubert_model.bundle import WEIGHTS, Bundle
from ubert_model.errors import BundleError, ConfigError, DeviceUnavailableError
from ubert_model.nn.devices import has_native_bfloat16
from ubert_model.nn.pair_scorer import PairScorer
from ubert_service.scoring.assembly import ScorerBatch
from ubert_service.scoring.device_states import DeviceStates
from ubert_service.scoring.runtime import ActiveDevice
from ubert_service.settings import Device

_ENCODER_WEIGHTS = "review_encoder."


class TorchRuntime:
    """A ``ScoringRuntime`` over the bundle's weights.

    ``bfloat16``: co-matching, which is nearly all of the arithmetic, runs in it; everything else runs in fp32.
    ``threads`` bounds torch's threads in the whole process; 0 leaves the number to torch. ``resident_bytes``: the size
    of the cache of states on the device; 0: states are sent with every batch.

    Raises ``DeviceUnavailableError`` if ``cuda`` was asked for and torch has none, or if that fails, ``ConfigError`` if
    the device would only emulate bfloat16, ``BundleError`` if the weights do not fit the bundle's configuration.
    """

    def __init__(
        self, bundle: Bundle, *, device: Device, threads: int, bfloat16: bool, resident_bytes: int = 0
    ) -> None:
        self.device = chosen_device(device)
        self._device = torch.device(self.device)
        if bfloat16 and not has_native_bfloat16(self._device):
            raise ConfigError(f"runtime = 'torch-bf16': this {self.device} only emulates bfloat16; use torch")
        if threads:
            torch.set_num_threads(threads)
        scorer, dim = _load_scorer(bundle), bundle.manifest.state_dim
        self._states: DeviceStates | None = None
        with self._device_errors("getting ready"):
            self._scorer = scorer.to(self._device)
            if bfloat16:
                self._scorer.head.co_matching.to(torch.bfloat16)
            if resident_bytes:
                self._states = DeviceStates(dim=dim, device=self._device, max_bytes=resident_bytes)

    def score(self, batch: ScorerBatch) -> NDArray[np.float32]:
        with self._device_errors("computing"), torch.inference_mode():
            outputs: NDArray[np.float32] = self._scorer(**self._inputs(batch)).cpu().numpy()
        return outputs

    @contextmanager
    def _device_errors(self, doing: str) -> Iterator[None]:
        """On a GPU torch's errors may be failures of the device or one of its libraries; on a CPU they are bugs."""
        try:
            yield
        except RuntimeError as error:
            if self.device == "cpu":
                raise
            raise DeviceUnavailableError(f"device cuda failed while {doing}: {error}") from error

    def _inputs(self, batch: ScorerBatch) -> dict[str, Tensor]:
        if self._states is None:
            return self._sent(batch.graph_inputs())
        return {
            **self._sent(batch.inputs_without_states()),
            "user_states": self._states.gather(batch.user_side),
            "item_states": self._states.gather(batch.item_side),
        }

    def _sent(self, arrays: Mapping[str, NDArray[np.generic]]) -> dict[str, Tensor]:
        return {name: torch.from_numpy(values).to(self._device) for name, values in arrays.items()}


def chosen_device(asked: Device) -> ActiveDevice:
    """The device that torch computes on here. Raises as :func:`device_to_use` does."""
    return device_to_use(asked, has_cuda=torch.cuda.is_available())


def device_to_use(asked: Device, *, has_cuda: bool) -> ActiveDevice:
    """The device that torch computes on. Raises ``DeviceUnavailableError`` if ``cuda`` is asked for and missing."""
    if asked == "cuda" and not has_cuda:
        raise DeviceUnavailableError(
            "device cuda: this torch sees no GPU; install a CUDA build of torch and make a GPU and its driver visible "
            "to this process, or use --device cpu"
        )
    return "cuda" if has_cuda and asked != "cpu" else "cpu"


def _load_scorer(bundle: Bundle) -> PairScorer:
    """Everything above the review states, in evaluation mode; the encoder's weights are not read."""
    path = bundle.file(WEIGHTS)
    identities = bundle.identities
    scorer = PairScorer(
        bundle.manifest.state_dim,
        bundle.manifest.config,
        users=len(identities.users),
        items=len(identities.items),
        domains=len(identities.domains),
        mean_rating=0.0,  # replaced by the weights
    )
    try:
        with safe_open(path, framework="pt") as weights:
            names = [name for name in weights.keys() if not name.startswith(_ENCODER_WEIGHTS)]  # noqa: SIM118
            scorer.load_state_dict({name: weights.get_tensor(name) for name in names})
    except (OSError, SafetensorError, RuntimeError) as error:
        raise BundleError(f"{path} cannot be loaded: {error}; export the bundle again") from error
    return scorer.eval()
