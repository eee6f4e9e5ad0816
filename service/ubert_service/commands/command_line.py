"""What the commands of the service share: flags, and how errors are reported."""

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from ubert_model.errors import UbertError, os_error_message
from ubert_service.settings import Device, RuntimeChoice

BundleFlag = Annotated[Path, typer.Option(envvar="UBERT_BUNDLE", help="Directory written by `ubert export`.")]
StoreFlag = Annotated[
    str,
    typer.Option(
        envvar="UBERT_STORE",
        help="redis://HOST:PORT/DB, redis+cluster://NODE,NODE, redis+sentinel://SENTINEL,SENTINEL/NAME or "
        "lmdb:DIRECTORY.",
    ),
]
CodecFlag = Annotated[str, typer.Option(envvar="UBERT_CODEC", help="Codec that the states were precomputed with.")]
DeviceFlag = Annotated[
    Device, typer.Option(envvar="UBERT_DEVICE", help="cuda: fail if no GPU works; auto: fall back to the CPU.")
]
RuntimeFlag = Annotated[
    RuntimeChoice, typer.Option(envvar="UBERT_RUNTIME", help="What scores; auto: the fastest, measured at start.")
]

_USAGE_ERROR = 2


def new_app() -> typer.Typer:
    """A command line like that of `ubert`: plain-text help, which narrow terminals do not truncate."""
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def run_command(app: typer.Typer, program: str) -> None:
    """Run a command line. A foreseen error ends it with one line on stderr and exit status 2."""
    try:
        app()
    except UbertError as error:
        _exit_with(program, str(error))
    except OSError as error:
        _exit_with(program, os_error_message(error))


def _exit_with(program: str, message: str) -> NoReturn:
    print(f"{program}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(_USAGE_ERROR)
