"""`ubert`: the command line of the offline side."""

import sys
import tomllib
from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup

from ubert_model.errors import ConfigError, UbertError, os_error_message


class LazyCommand(NamedTuple):
    """``module:attribute`` of a command or a ``Typer`` below ``ubert_training.commands``, and its first help line."""

    target: str
    help: str


COMMANDS: Mapping[str, LazyCommand] = {
    "demo": LazyCommand(
        "demo:demo_command",
        "Import, pre-train, fine-tune, evaluate, precompute and serve, then score real pairs over HTTP.",
    ),
    "import": LazyCommand(
        "import_reviews:import_command",
        "Import review files into one table: validated, de-duplicated, k-core filtered, in one fixed order.",
    ),
    "split": LazyCommand(
        "split:split_command",
        "Divide the reviews of the target domain into train, validation and test, once, for every later step.",
    ),
    "pretrain": LazyCommand(
        "pretrain:pretrain_command",
        "Pre-train the review encoder and the user encoder: masked opinion tokens and opinion ratings (Figure 2).",
    ),
    "finetune": LazyCommand(
        "finetune:finetune_command",
        "Fine-tune on the target domain: item encoder, co-matching and prediction layer (Figure 3).",
    ),
    "tune": LazyCommand(
        "tune:tune_command",
        "Try a handful of recipes and keep the cheapest that validation cannot tell from the best.",
    ),
    "reproduce": LazyCommand(
        "reproduce:reproduce_command",
        "Print the commands that repeat an experiment of the paper, its numbers beside ours; or run them.",
    ),
    "evaluate": LazyCommand(
        "evaluate:evaluate_command",
        "Score the test part against mean, tuned biases, SVD and SVD++ on the same split; table, JSON and plot.",
    ),
    "export": LazyCommand(
        "export:export_command",
        "Write the bundle, all that the service needs: weights, tokenizer, ids, ONNX graphs, metrics, checksums.",
    ),
    "precompute": LazyCommand(
        "precompute:precompute_command",
        "Encode every review once and fill the store; if killed, run it again to write the rest.",
    ),
    "bench": LazyCommand("bench:app", "Measure accuracy, speed and state codecs on your own reviews."),
    "states": LazyCommand("states:app", "List, verify, drop and copy the contents of state stores."),
    "plan": LazyCommand(
        "plan:plan_command", "Plan memory, cores, hours and traffic, with every formula, and what breaks first."
    ),
    "synth": LazyCommand("synth:synth_command", "Write a SYNTHETIC review corpus whose best reachable error is known."),
}

RESUMED = (
    *("demo", "import", "pretrain", "finetune", "tune", "reproduce", "precompute"),
    *("bench accuracy", "states drop", "states copy"),
)
"""Commands that continue where they were killed. The others leave no half of a result, and begin anew."""


class LazyGroup(TyperGroup):
    """Imports a command's module only when the command is called, since importing torch takes seconds."""

    called = ""
    """The command that the user gave, with its first argument, such as ``bench accuracy``."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        if ctx.parent is None:
            self.called = " ".join(args[:2])
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None:
            app: Any = typer.main.get_command(make_app([name]))
            command = self.commands[name] = app.commands[name]
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        if ctx.parent is not None:  # a step of `ubert reproduce`, which tells the user what ended it
            return super().invoke(ctx)
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message += _setting(error, ctx.params.get("config"))
            raise
        except KeyboardInterrupt:
            remedy = "continues where it stopped" if self.called.startswith(RESUMED) else "begins anew"
            print(f"ubert: interrupted; the same command {remedy}", file=sys.stderr)
            raise  # typer ends with exit status 130


def _setting(error: Any, config: Path | None) -> str:
    """Where a refused value stands that is not on the command line: a variable of the environment, or a file."""
    context, option = error.ctx, error.param
    source = None if context is None or option is None else context.get_parameter_source(option.name)
    if source is not None and source.name == "ENVIRONMENT":
        value = option.resolve_envvar_value(context)
        return f": {context.auto_envvar_prefix}_{option.name.upper()} = {value!r}"
    if source is not None and source.name == "DEFAULT_MAP":
        return f": {option.name} = {context.lookup_default(option.name)!r} in {config}"
    return ""


def make_app(imported: Collection[str] = ()) -> typer.Typer:
    """The command line. Commands outside ``imported`` are placeholders, imported when they are called."""
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
    for name, entry in COMMANDS.items():
        if name not in imported:
            app.command(name, help=entry.help)(_not_imported)
            continue
        module, attribute = entry.target.split(":")
        command = getattr(import_module(f"ubert_training.commands.{module}"), attribute)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


def _not_imported() -> None:
    """Placeholder for a command that has not been called."""


def root(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file, one table per command, such as [finetune]; flags and environment override it."),
    ] = None,
) -> None:
    """Flags take precedence over the environment (UBERT_FINETUNE_SEED), then the file, then the defaults."""
    called = context.invoked_subcommand
    if config is not None and called is not None:
        commands: Mapping[str, Any] = getattr(context.command, "commands", {})
        context.default_map = {called: read_config(config, called, commands[called])}


def read_config(path: Path, called: str, command: Any) -> dict[str, Any]:
    """Read the defaults of the command that is called from its table of a TOML file.

    Tables of other commands are not checked: they are for other runs. Raises ``ConfigError`` naming a table that is no
    command, or a setting that is no flag.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"config file {path}: {error}") from error
    for table, values in tables.items():
        if table not in COMMANDS or not isinstance(values, dict):
            raise ConfigError(f"config file {path}: [{table}] is not a command; use one of {', '.join(COMMANDS)}")
    return _defaults(path, called, tables.get(called, {}), command)


def _defaults(path: Path, table: str, values: Mapping[str, Any], command: Any) -> dict[str, Any]:
    """Check the defaults of one table. A group of commands has a subtable for each, such as ``[states.verify]``. A
    single value of a flag that may be repeated becomes a list.
    """
    subcommands: Mapping[str, Any] | None = getattr(command, "commands", None)
    known = {parameter.name: parameter for parameter in command.params} if subcommands is None else subcommands
    given = {key.replace("-", "_"): value for key, value in values.items()}
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ConfigError(f"config file {path}: [{table}] has no {', '.join(unknown)}; see `ubert {table} --help`")
    for name, value in given.items():
        if subcommands is not None:
            if not isinstance(value, dict):
                raise ConfigError(f"config file {path}: {name} = {value!r} must be a table, [{table}.{name}]")
            given[name] = _defaults(path, f"{table}.{name}", value, known[name])
        elif (known[name].nargs == -1 or getattr(known[name], "multiple", False)) and not isinstance(value, list):
            given[name] = [value]
    return given


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. Every expected error is printed as one line on standard error, with exit status 2."""
    try:
        make_app()(list(sys.argv[1:] if arguments is None else arguments), prog_name="ubert")
    except UbertError as error:
        raise _exit(str(error)) from None
    except OSError as error:
        raise _exit(os_error_message(error)) from None
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("ubert_"):
            raise
        raise _exit(
            f"{error.name} is not installed; pip install 'u-bert[train]', for the demo 'u-bert[demo]'"
        ) from None


def _exit(message: str) -> SystemExit:
    print(f"ubert: {' '.join(message.split())}", file=sys.stderr)
    return SystemExit(2)


if __name__ == "__main__":
    main()
