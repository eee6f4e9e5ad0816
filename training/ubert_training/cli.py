"""`ubert`: the offline side's command line."""

import sys
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ubert_model.errors import ConfigError, UbertError
from ubert_training.commands.demo import demo_command
from ubert_training.commands.evaluate import evaluate_command
from ubert_training.commands.export import export_command
from ubert_training.commands.finetune import finetune_command
from ubert_training.commands.import_reviews import import_command
from ubert_training.commands.precompute import precompute_command
from ubert_training.commands.pretrain import pretrain_command
from ubert_training.commands.split import split_command
from ubert_training.commands.synth import synth_command

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"auto_envvar_prefix": "UBERT"},
    help="Reviews in, rating predictions out: train U-BERT offline and fill the store that the service reads.",
)
COMMANDS = {
    "demo": demo_command,
    "import": import_command,
    "split": split_command,
    "pretrain": pretrain_command,
    "finetune": finetune_command,
    "evaluate": evaluate_command,
    "export": export_command,
    "precompute": precompute_command,
    "synth": synth_command,
}
for name, command in COMMANDS.items():
    app.command(name)(command)


@app.callback()
def root(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file with a table a command, such as [finetune]; flags and environment override it."),
    ] = None,
) -> None:
    """Flags come first, then the environment (UBERT_FINETUNE_SEED), then the file, then the defaults."""
    if config is not None:
        commands: dict[str, Any] = getattr(context.command, "commands", {})
        flags = {name: {parameter.name for parameter in command.params} for name, command in commands.items()}
        context.default_map = read_config(config, flags)


def read_config(path: Path, flags: Mapping[str, Collection[str]]) -> dict[str, Any]:
    """Defaults by command, from a file; ``flags`` names those that each command has.

    Raises ``ConfigError`` naming what the file asks for and no command knows.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"config file {path}: {error}") from error
    defaults: dict[str, Any] = {}
    for table, values in tables.items():
        if table not in flags or not isinstance(values, dict):
            raise ConfigError(f"config file {path}: [{table}] is no command; use one of {', '.join(flags)}")
        defaults[table] = {key.replace("-", "_"): value for key, value in values.items()}
        unknown = sorted(set(defaults[table]) - set(flags[table]))
        if unknown:
            raise ConfigError(f"config file {path}: [{table}] has no {', '.join(unknown)}; see `ubert {table} --help`")
    return defaults


def main() -> None:
    """Entry point: every expected error is one line on standard error and exit status 2."""
    try:
        app()
    except UbertError as error:
        print(f"ubert: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
