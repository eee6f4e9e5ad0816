"""What the commands of the service share: the form of their help, and how errors are reported."""

import sys
from typing import NoReturn

import typer

from ubert_model.errors import UbertError, os_error_message

_USAGE_ERROR = 2


def new_app() -> typer.Typer:
    """A command line like that of `ubert`: plain-text help, which narrow terminals do not truncate."""
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def run_command(app: typer.Typer, program: str) -> None:
    """Run a command line. A foreseen error ends it with one line on stderr and exit status 2."""
    try:
        app()
    except UbertError as error:
        exit_with(program, str(error))
    except OSError as error:
        exit_with(program, os_error_message(error))


def exit_with(program: str, message: str) -> NoReturn:
    """End with one line on stderr and exit status 2."""
    print(f"{program}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(_USAGE_ERROR)
