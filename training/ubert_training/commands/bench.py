"""`ubert bench`: measure accuracy, speed and state codecs on the user's own reviews."""

import typer

from ubert_training.commands.bench_accuracy import bench_accuracy_command
from ubert_training.commands.bench_rates import bench_rates_command
from ubert_training.commands.bench_states import bench_states_command

app = typer.Typer(no_args_is_help=True, help="Measure accuracy, speed and state codecs on your own reviews.")
app.command("accuracy")(bench_accuracy_command)
app.command("rates")(bench_rates_command)
app.command("states")(bench_states_command)
