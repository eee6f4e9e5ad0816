"""`ubert`: the offline side's command line."""

import sys
import tomllib
from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from ubert_model.errors import ConfigError, UbertError

COMMANDS: Mapping[str, str] = {
    "demo": "demo:demo_command",
    "import": "import_reviews:import_command",
    "split": "split:split_command",
    "pretrain": "pretrain:pretrain_command",
    "finetune": "finetune:finetune_command",
    "tune": "tune:tune_command",
    "reproduce": "reproduce:reproduce_command",
    "evaluate": "evaluate:evaluate_command",
    "export": "export:export_command",
    "precompute": "precompute:precompute_command",
    "bench": "bench:app",
    "states": "states:app",
    "plan": "plan:plan_command",
    "synth": "synth:synth_command",
}
"""Where each command, or ``Typer`` of several, lives below ``ubert_training.commands``."""

Flags: TypeAlias = "Collection[str] | Mapping[str, Flags]"
"""The flags of a command, or those of each command below it."""


def make_app(names: Collection[str] = COMMANDS.keys()) -> typer.Typer:
    """The command line with the named commands; only their modules are imported, since torch takes seconds."""
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"auto_envvar_prefix": "UBERT"},
        help="Reviews in, rating predictions out: train U-BERT offline and fill the store that the service reads.",
    )
    app.callback()(root)
    for name in names:
        module, attribute = COMMANDS[name].split(":")
        command = getattr(import_module(f"ubert_training.commands.{module}"), attribute)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


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
        context.default_map = read_config(config, {name: _flags(command) for name, command in commands.items()})


def read_config(path: Path, flags: Mapping[str, Flags]) -> dict[str, Any]:
    """Defaults by command, from a file; ``flags`` names those of the commands at hand.

    Raises ``ConfigError`` naming what the file asks for and no command knows. Tables of commands that are not at
    hand are for another run, and left alone.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"config file {path}: {error}") from error
    defaults: dict[str, Any] = {}
    for table, values in tables.items():
        if table not in COMMANDS or not isinstance(values, dict):
            raise ConfigError(f"config file {path}: [{table}] is no command; use one of {', '.join(COMMANDS)}")
        if table in flags:
            defaults[table] = _defaults(path, table, values, flags[table])
    return defaults


def _flags(command: Any) -> Flags:
    below: Mapping[str, Any] | None = getattr(command, "commands", None)
    if below is None:
        return {parameter.name for parameter in command.params}
    return {name: _flags(subcommand) for name, subcommand in below.items()}


def _defaults(path: Path, table: str, values: Mapping[str, Any], flags: Flags) -> dict[str, Any]:
    """One table's defaults; a command of several has a table below its own for each, as ``[states.verify]``."""
    given = {key.replace("-", "_"): value for key, value in values.items()}
    unknown = sorted(set(given) - set(flags))
    if unknown:
        raise ConfigError(f"config file {path}: [{table}] has no {', '.join(unknown)}; see `ubert {table} --help`")
    if not isinstance(flags, Mapping):
        return given
    for name, below in given.items():
        if not isinstance(below, dict):
            raise ConfigError(f"config file {path}: {name} = {below!r} belongs into [{table}.…]")
    return {name: _defaults(path, f"{table}.{name}", below, flags[name]) for name, below in given.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: every expected error is one line on standard error and exit status 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    asked = next(([argument] for argument in arguments if argument in COMMANDS), COMMANDS.keys())
    try:
        make_app(asked)(list(arguments), prog_name="ubert")
    except UbertError as error:
        raise _ended(str(error)) from None
    except OSError as error:
        # What a path of the user's asks of the system and is refused: no such folder, no room, no permission.
        path = error.filename2 or error.filename
        raise _ended(f"{path}: {error.strerror}" if path else str(error)) from None


def _ended(message: str) -> SystemExit:
    print(f"ubert: {' '.join(message.split())}", file=sys.stderr)
    return SystemExit(2)


if __name__ == "__main__":
    main()
