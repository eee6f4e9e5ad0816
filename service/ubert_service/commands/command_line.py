"""What the commands of the service have in common: flags, and how an error ends them."""

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from ubert_model.errors import UbertError, refused_by_system
from ubert_service.settings import Device, RuntimeChoice

BundleFlag = Annotated[Path, typer.Option(envvar="UBERT_BUNDLE", help="Directory that `ubert export` wrote.")]
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
    Device, typer.Option(envvar="UBERT_DEVICE", help="cuda: fail where no GPU works; auto: then take the CPU.")
]
RuntimeFlag = Annotated[
    RuntimeChoice, typer.Option(envvar="UBERT_RUNTIME", help="What scores; auto: the fastest, by a measurement.")
]

_USAGE_ERROR = 2


def new_app() -> typer.Typer:
    """A command line like that of `ubert`: help as plain text, of which a narrow terminal cuts nothing off."""
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def run_command(app: typer.Typer, program: str) -> None:
    """Run a command line. An error that has a name is one line on stderr and exit status 2."""
    try:
        app()
    except UbertError as error:
        _end(program, str(error))
    except OSError as error:
        _end(program, refused_by_system(error))


def _end(program: str, told: str) -> NoReturn:
    print(f"{program}: {' '.join(told.split())}", file=sys.stderr)
    sys.exit(_USAGE_ERROR)
