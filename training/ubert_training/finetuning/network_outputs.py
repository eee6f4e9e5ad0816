"""Network outputs for many pairs."""

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from numpy.typing import NDArray
from torch import nn

from ubert_training.finetuning.histories import Histories
from ubert_training.finetuning.pair_batches import PairSource
from ubert_training.optimization.batches import Indices, bucketed_batches
from ubert_training.running.processes import process_share, sum_over_processes

EVALUATION_BATCH = 64


def evaluation_batches(source: PairSource, histories: Histories, pairs: Indices) -> list[Indices]:
    """The pairs at these indices, in batches that need little padding."""
    return bucketed_batches(pairs, source.sizes(histories), EVALUATION_BATCH)


def network_outputs(
    model: nn.Module, source: PairSource, histories: Histories, accelerator: Accelerator
) -> NDArray[np.float64]:
    """Network output of each pair, (P,), in evaluation mode and fp32; 0 for pairs without text on a side.

    All processes must call this: they share the work.
    """
    model.eval()
    outputs = np.zeros(len(histories))
    with torch.inference_mode():
        for index in process_share(accelerator, evaluation_batches(source, histories, np.arange(len(histories)))):
            batch = send_to_device(source.batch(histories, index), accelerator.device)
            outputs[index] = model(batch).cpu().double().numpy()
    outputs[~histories.has_both_sides] = 0.0
    return sum_over_processes(accelerator, outputs)
