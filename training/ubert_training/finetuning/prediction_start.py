"""Where prediction starts: co-matching as a comparison, and its layer at the ridge regression over all it reads."""

import numpy as np
import torch
from torch import Tensor

from ubert_training.finetuning.finetuning_task import FinetuningTask
from ubert_training.finetuning.pair_model import evaluation_batches
from ubert_training.running.processes import own_share, put_together

RIDGE_STRENGTHS = tuple(np.logspace(1, 7, 19))
RIDGE_PAIRS = 100_000
"""At most so many pairs, drawn at random: many times the weights there are, and at D = 128 some 2 GB of memory."""


def solve_prediction_layer(task: FinetuningTask) -> None:
    """Start co-matching as a plain comparison, and the prediction layer at the ridge regression over all that it reads:
    û, tᵘ, î, tⁱ and the aligned ratings.

    With few pairs this is most of what can be learned: its strength is chosen by leave-one-out over the training
    pairs (a sample of :data:`RIDGE_PAIRS`, if there are more), where gradient steps from a random layer would spend
    the same pairs on noise first. Without a pair that has text on both sides the layer stays as it is.
    """
    head = task.rating_model.head
    head.co_matching.start_plain()
    if not len(task.readable):
        return
    layer = head.prediction_layer
    pairs = task.sample_readable(RIDGE_PAIRS)
    inputs = np.zeros((len(pairs), layer.output.in_features))
    joined: list[Tensor] = []
    handle = layer.output.register_forward_pre_hook(lambda _, arguments: joined.append(arguments[0].double().cpu()))
    task.model.eval()
    with handle, torch.inference_mode():
        for batch in own_share(task.accelerator, evaluation_batches(task.source, task.training, pairs)):
            task.model(task.source.batch(task.training, batch).to(task.device))
            inputs[np.searchsorted(pairs, batch)] = joined.pop().numpy()
    inputs = put_together(task.accelerator, inputs)
    # Two seconds, which only a run's first start needs: not its continuation, nor whoever reads a finished model.
    from sklearn.linear_model import RidgeCV  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    scaler = StandardScaler(copy=False).fit(inputs)
    ridge = RidgeCV(alphas=RIDGE_STRENGTHS).fit(scaler.transform(inputs), task.targets.numpy()[pairs])
    weight = ridge.coef_ / scaler.scale_
    with torch.no_grad():
        layer.output.weight[0] = torch.from_numpy(weight).float()
        layer.output.bias.fill_(float(ridge.intercept_ - weight @ scaler.mean_))
