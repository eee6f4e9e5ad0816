"""``ubert-serve-key``: makes an API key, of which the service only ever sees the hash."""

import sys
from typing import Annotated

import typer

from ubert_service.access.keys import new_key
from ubert_service.commands.command_line import new_app, run_command

app = new_app()


@app.command(help="Make an API key: prints the key to stderr, once, and its table for the --api-keys file to stdout.")
def run(
    name: Annotated[str, typer.Argument(help="Who will use it; shown in the log.")],
    scope: Annotated[
        list[str], typer.Option(help="What it allows: read, write or admin (which includes read); may be repeated.")
    ],
) -> None:
    key, table = new_key(name, scope)
    print(table)
    print(key, file=sys.stderr)


def main() -> None:
    """Entry point."""
    run_command(app, "ubert-serve-key")


if __name__ == "__main__":
    main()
