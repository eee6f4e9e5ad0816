"""Work that several processes share, each of them ending with the whole result."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast
from numpy.typing import NDArray

Work = TypeVar("Work")


def speaks_for_all() -> bool:
    """Is this the process whose word on the terminal stands for all?"""
    return bool(PartialState().is_main_process)


def own_share(accelerator: Accelerator, work: Sequence[Work]) -> Sequence[Work]:
    """What this process does of some work; the shares of all processes are the whole."""
    return work[accelerator.process_index :: accelerator.num_processes]


def put_together(accelerator: Accelerator, computed: NDArray[np.float64]) -> NDArray[np.float64]:
    """The whole of what each process has computed its share of, zeros elsewhere. To be called by all of them.

    All processes get the main one's result to the last bit, so that what is decided by it is decided alike.
    """
    if accelerator.num_processes == 1:
        return computed
    own = torch.from_numpy(computed).to(accelerator.device)
    whole: torch.Tensor = broadcast(accelerator.reduce(own, "sum"))
    return whole.cpu().numpy()
