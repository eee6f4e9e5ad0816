"""Entry points of the commands, each of which imports its command late: without its extra, it ends with the remedy."""

from collections.abc import Callable
from importlib import import_module

from ubert_service import signals
from ubert_service.leaving import SECONDS_TO_CLOSE, leave_after


def serve() -> None:
    """``ubert-serve``, which decides what signals do before it imports the rest: that takes a second."""
    signals.hold_hangup()
    main = _main_of("serve", "ubert-serve", extra="serve")
    signals.exit_cleanly()
    try:
        main()
    finally:
        leave_after(SECONDS_TO_CLOSE)


def key() -> None:
    """``ubert-serve-key``."""
    _main_of("key", "ubert-serve-key", extra="serve")()


def promote() -> None:
    """``ubert-serve-promote``, which needs no more than the client."""
    _main_of("promote", "ubert-serve-promote", extra="client")()


def score() -> None:
    """``ubert-serve-score``."""
    _main_of("score", "ubert-serve-score", extra="score")()


def _main_of(command: str, program: str, *, extra: str) -> Callable[[], None]:
    try:
        module = import_module(f"ubert_service.commands.{command}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("ubert_"):
            raise
        from ubert_service.commands.command_line import exit_with  # noqa: PLC0415  # late, as the commands are

        exit_with(program, f"{error.name} is not installed; pip install 'u-bert[{extra}]'")
    main: Callable[[], None] = module.main
    return main
