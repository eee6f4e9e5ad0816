"""`ubert`: the offline side's command line."""

import sys
import tomllib
from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeAlias

import typer
from typer.core import TyperGroup

from ubert_model.errors import ConfigError, UbertError, refused_by_system


class Listed(NamedTuple):
    """Where a command, or ``Typer`` of several, lives below ``ubert_training.commands``, and its help's first line."""

    place: str
    help: str


COMMANDS: Mapping[str, Listed] = {
    "demo": Listed(
        "demo:demo_command",
        "Import, pre-train, fine-tune, evaluate, precompute and serve, then score real pairs over HTTP.",
    ),
    "import": Listed(
        "import_reviews:import_command",
        "Import review files into one table: validated, de-duplicated, k-core filtered, in one fixed order.",
    ),
    "split": Listed(
        "split:split_command",
        "Divide the reviews of the target domain into train, validation and test, once, for every later step.",
    ),
    "pretrain": Listed(
        "pretrain:pretrain_command",
        "Pre-train the review encoder and the user encoder: masked opinion tokens and opinion ratings (Figure 2).",
    ),
    "finetune": Listed(
        "finetune:finetune_command",
        "Fine-tune on the target domain: item encoder, co-matching and prediction layer (Figure 3).",
    ),
    "tune": Listed(
        "tune:tune_command",
        "Try a handful of recipes and keep the cheapest that validation cannot tell from the best.",
    ),
    "reproduce": Listed(
        "reproduce:reproduce_command",
        "Print the commands that repeat an experiment of the paper, its numbers beside ours; or run them.",
    ),
    "evaluate": Listed(
        "evaluate:evaluate_command",
        "Score the test part against mean, tuned biases, SVD and SVD++ of the same split; table, JSON and plot.",
    ),
    "export": Listed(
        "export:export_command",
        "Write the bundle: weights, tokenizer, identities, ONNX graphs, metrics, checksums; all the service needs.",
    ),
    "precompute": Listed(
        "precompute:precompute_command",
        "Encode every review once and fill the store; killed and started again it writes what is left.",
    ),
    "bench": Listed("bench:app", "Measure on your own reviews what choices cost and gain."),
    "states": Listed("states:app", "See, check, remove and copy what state stores hold."),
    "plan": Listed(
        "plan:plan_command", "Plan memory, cores, hours and traffic, with every formula, and what breaks first."
    ),
    "synth": Listed("synth:synth_command", "Write a SYNTHETIC review corpus whose best reachable error is known."),
}

Flags: TypeAlias = "Collection[str] | Mapping[str, Flags]"
"""The flags of a command, or those of each command below it."""


class LazyGroup(TyperGroup):
    """Imports a command's module only when the command is called, since torch takes seconds."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None:
            whole: Any = typer.main.get_command(make_app([name]))
            command = self.commands[name] = whole.commands[name]
        return name, command, rest


def make_app(imported: Collection[str] = ()) -> typer.Typer:
    """The command line; commands that are not ``imported`` at once are when they are called."""
    app = typer.Typer(
        cls=LazyGroup,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"auto_envvar_prefix": "UBERT"},
        help="Reviews in, rating predictions out: train U-BERT offline and fill the store that the service reads.",
    )
    app.callback()(root)
    for name, listed in COMMANDS.items():
        if name not in imported:
            app.command(name, help=listed.help)(_not_imported)
            continue
        module, attribute = listed.place.split(":")
        command = getattr(import_module(f"ubert_training.commands.{module}"), attribute)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


def _not_imported() -> None:
    """Stands for a command until it is called."""


def root(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file with a table a command, such as [finetune]; flags and environment override it."),
    ] = None,
) -> None:
    """Flags come first, then the environment (UBERT_FINETUNE_SEED), then the file, then the defaults."""
    called = context.invoked_subcommand
    if config is not None and called is not None:
        commands: Mapping[str, Any] = getattr(context.command, "commands", {})
        defaults = read_config(config, {called: _flags(commands[called])})
        context.default_map = {name: _with_lists(commands[name], values) for name, values in defaults.items()}


def read_config(path: Path, flags: Mapping[str, Flags]) -> dict[str, Any]:
    """Defaults by command, from a file; ``flags`` names those of the command that is called.

    Raises ``ConfigError`` naming what the file asks for and no command knows. Tables of other commands are for
    another run, and left alone.
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


def _with_lists(command: Any, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults, where a flag that may be repeated takes a single value as well as a list."""
    listed = dict(defaults)
    for name, below in getattr(command, "commands", {}).items():
        if name in listed:
            listed[name] = _with_lists(below, listed[name])
    for parameter in command.params:
        repeated = parameter.nargs == -1 or getattr(parameter, "multiple", False)
        if repeated and parameter.name in listed and not isinstance(listed[parameter.name], list):
            listed[parameter.name] = [listed[parameter.name]]
    return listed


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
    try:
        make_app()(list(sys.argv[1:] if arguments is None else arguments), prog_name="ubert")
    except UbertError as error:
        raise _ended(str(error)) from None
    except OSError as error:
        raise _ended(refused_by_system(error)) from None


def _ended(message: str) -> SystemExit:
    print(f"ubert: {' '.join(message.split())}", file=sys.stderr)
    return SystemExit(2)


if __name__ == "__main__":
    main()
