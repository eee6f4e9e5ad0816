"""Initialisation of the head: co-matching as a difference, the prediction layer by ridge regression on its inputs."""

import numpy as np
import torch
from accelerate.utils import send_to_device

from ubert_training.finetuning.finetuning_task import FinetuningTask
from ubert_training.finetuning.network_outputs import evaluation_batches
from ubert_training.running.processes import process_share, sum_over_processes

RIDGE_STRENGTHS = tuple(np.logspace(1, 7, 19))
RIDGE_PAIRS = 100_000
"""Largest sample of pairs to fit: many times the number of weights, and some 2 GB of memory at D = 128."""


def solve_prediction_layer(task: FinetuningTask) -> None:
    """Initialise co-matching as a difference, and the prediction layer by ridge regression on its inputs: û, tᵘ, î, tⁱ
    and the aligned ratings.

    With few pairs this is most of what can be learned; gradient steps from a random layer would first fit noise with
    them. The strength of the penalty is chosen by leave-one-out over the training pairs (a sample of
    :data:`RIDGE_PAIRS`, if there are more). The mean correction of these pairs is 0: the bias model beneath has fitted
    the mean, and what is left of it is noise. Without any pair that has text on both sides the layer stays as it is.
    """
    head = task.pair_model.model.head
    head.co_matching.init_as_difference()
    if not len(task.readable):
        return
    layer = head.prediction_layer
    pairs = task.sample_readable(RIDGE_PAIRS)
    inputs = np.zeros((len(pairs), layer.output.in_features))
    task.model.eval()
    with torch.inference_mode():
        for batch in process_share(task.accelerator, evaluation_batches(task.source, task.training, pairs)):
            head_inputs = task.pair_model.head_inputs(
                send_to_device(task.source.batch(task.training, batch), task.device)
            )
            rows = layer.inputs(*head.represent(*head_inputs))  # (B, 4 D[ + 2])
            inputs[np.searchsorted(pairs, batch)] = rows.cpu().double().numpy()
    inputs = sum_over_processes(task.accelerator, inputs)
    # Takes two seconds to import, and is not needed to continue a run or to read a finished model.
    from sklearn.linear_model import RidgeCV  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    scaler = StandardScaler(copy=False).fit(inputs)
    targets = task.targets.numpy()[pairs]
    ridge = RidgeCV(alphas=RIDGE_STRENGTHS, fit_intercept=False).fit(scaler.transform(inputs), targets)
    weight = ridge.coef_ / scaler.scale_
    with torch.no_grad():
        layer.output.weight[0] = torch.from_numpy(weight).float()
        layer.output.bias.fill_(-float(weight @ scaler.mean_))
