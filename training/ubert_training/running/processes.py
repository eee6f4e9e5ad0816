"""Work divided among several processes, after which each of them has the whole result."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast
from numpy.typing import NDArray

Work = TypeVar("Work")


def is_main_process() -> bool:
    """Whether this is the process that prints the results."""
    return bool(PartialState().is_main_process)


def process_share(accelerator: Accelerator, work: Sequence[Work]) -> Sequence[Work]:
    """The items of ``work`` that this process does; every item belongs to exactly one process."""
    return work[accelerator.process_index :: accelerator.num_processes]


def sum_over_processes(accelerator: Accelerator, computed: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum the arrays of all processes, each zero outside the process's own share. All processes must call it.

    Every process gets the main one's sum to the last bit, so that all take the same decisions from it.
    """
    if accelerator.num_processes == 1:
        return computed
    own = torch.from_numpy(computed).to(accelerator.device)
    total: torch.Tensor = broadcast(accelerator.reduce(own, "sum"))
    return total.cpu().numpy()
