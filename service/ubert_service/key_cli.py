"""``ubert-serve-key``: make an API key. The service itself only ever sees its hash."""

import sys
from typing import Annotated

import typer

from ubert_model.errors import ConfigError
from ubert_service.access import new_key

_USAGE_ERROR = 2

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help="Make an API key: the key itself on stderr, once; on stdout its table for the file of --api-keys.")
def run(
    name: Annotated[str, typer.Argument(help="Who will use it; stands in the log.")],
    scope: Annotated[
        list[str], typer.Option(help="What it allows: read, write or admin (which may read, too); may be repeated.")
    ],
) -> None:
    try:
        key, table = new_key(name, scope)
    except ConfigError as error:
        print(f"ubert-serve-key: {error}", file=sys.stderr)
        raise typer.Exit(_USAGE_ERROR) from error
    print(table)
    print(key, file=sys.stderr)


def main() -> None:
    """Entry point."""
    app()


if __name__ == "__main__":
    main()
