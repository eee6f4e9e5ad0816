"""`ubert evaluate`."""

from typing import cast

from ubert_training.commands import flags
from ubert_training.commands.options import console, load_reviews
from ubert_training.running.stage import read_stage


def evaluate_command(
    reviews: flags.Reviews, run: flags.Run, states: flags.States = None, device: flags.Device = "auto"
) -> None:
    """Score the test part against mean, tuned biases, SVD and SVD++ on the same split; table, JSON and plot.

    After pre-training in other domains, the baselines are also scored with the reviews of those domains to learn from.
    """
    table = load_reviews(reviews)
    read_stage(run)
    from ubert_training.evaluation.evaluate import EVALUATION, evaluate, evaluation_table, history_table
    from ubert_training.evaluation.plots import PLOT, plot_evaluation
    from ubert_training.running.devices import DeviceChoice

    evaluation = evaluate(table, run, states=states or run.with_name("states"), device=cast(DeviceChoice, device))
    plot_evaluation(evaluation, run / PLOT)
    console.print(evaluation_table(evaluation))
    console.print(history_table(evaluation, "user", evaluation.by_user_history))
    console.print(history_table(evaluation, "item", evaluation.by_item_history))
    console.print(f"{run / EVALUATION}, {run / PLOT}")
