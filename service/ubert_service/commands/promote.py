"""``ubert-serve-promote``: makes a bundle live on all replicas of a service."""

import socket
from collections.abc import Mapping, Sequence
from typing import Annotated

import httpx
import typer

from ubert_model.errors import ConfigError, InputError
from ubert_service.client import Client, ClientError, NotAllowedError, RetryPolicy
from ubert_service.client.calls import address_of
from ubert_service.commands.command_line import new_app, run_command
from ubert_service.schemas import Version

_SHOWN_CHARACTERS = 12
_RETRIES = RetryPolicy(attempts=3, deadline_s=10.0)

app = new_app()


@app.command(help="Make a bundle live on every replica. Unless all have it loaded, nothing is changed.")
def run(
    bundle: Annotated[str, typer.Argument(help="Its id as shown by /version, or a prefix of it.")],
    url: Annotated[list[str], typer.Option(help="Address of a replica, not of a balancer; may be repeated.")],
    all_addresses: Annotated[
        bool, typer.Option("--all-addresses", help="Resolve the host name of each --url to all of its addresses.")
    ] = False,
    api_key: Annotated[
        str | None, typer.Option(envvar="UBERT_API_KEY", help="A key with the scope admin; better set by the variable.")
    ] = None,
) -> None:
    urls = list(dict.fromkeys(address for each in url for address in _addresses(each, every=all_addresses)))
    try:
        replicas = {address: _version_at(address, api_key) for address in urls}
    except ClientError as error:
        raise InputError(f"{error}; nothing was changed") from error
    target = _resolved(bundle, replicas)
    for address, version in replicas.items():
        if version.bundle != target and not _promoted(address, target, api_key):
            break  # the others may fail as well, and fewer promoted replicas are easier to undo
    _report(urls, target, api_key)


def _resolved(prefix: str, replicas: Mapping[str, Version]) -> str:
    """The id of the bundle with this prefix. Raises ``InputError`` unless every replica has it loaded."""
    loaded = {url: {version.bundle, version.shadow} for url, version in replicas.items()}
    found = {bundle for bundles in loaded.values() for bundle in bundles if bundle and bundle.startswith(prefix)}
    lacking = [url for url, bundles in loaded.items() if not bundles & found]
    if len(found) != 1 or lacking:
        shown = "; ".join(_shown(url, replicas[url]) for url in lacking or replicas)
        raise InputError(
            f"bundle {prefix!r} is not one that every replica has loaded, so nothing was changed: {shown}; start "
            "all of them with it as --bundle or --shadow-bundle"
        )
    return found.pop()


def _promoted(url: str, target: str, api_key: str | None) -> bool:
    try:
        with Client(url, api_key=api_key, policy=_RETRIES) as client:
            client.promote(target)
    except ClientError as error:
        typer.echo(f"{url}  was not promoted: {_explained(error)}", err=True)
        return False
    return True


def _report(urls: Sequence[str], target: str, api_key: str | None) -> None:
    """Print the bundles of every replica. Exit status 1 unless ``target`` is live on all."""
    left = 0
    for url in urls:
        try:
            version = _version_at(url, api_key)
        except ClientError as error:
            left += 1
            typer.echo(error)
        else:
            left += version.bundle != target
            typer.echo(_shown(url, version))
    if left:
        typer.echo(
            f"{left} of {len(urls)} do not run {target[:_SHOWN_CHARACTERS]}: repeat the command once they can, or go "
            "back with the id of the other bundle; both are safe to repeat",
            err=True,
        )
        raise typer.Exit(1)


def _version_at(url: str, api_key: str | None) -> Version:
    """Ask a replica what it runs. Raises ``ClientError``, which names the replica."""
    try:
        with Client(url, api_key=api_key, policy=_RETRIES) as client:
            return client.version()
    except ClientError as error:
        raise ClientError(f"{url}  {_explained(error)}") from error


def _explained(error: ClientError) -> str:
    hint = "; a key of scope admin is given by UBERT_API_KEY or --api-key" if isinstance(error, NotAllowedError) else ""
    return f"{error}{hint}"


def _shown(url: str, version: Version) -> str:
    shadow = "none" if version.shadow is None else version.shadow[:_SHOWN_CHARACTERS]
    return f"{url}  live {version.bundle[:_SHOWN_CHARACTERS]}, shadow {shadow}"


def _addresses(url: str, *, every: bool) -> list[str]:
    """The URL itself or, for ``every``, one URL per address of its host.

    Raises ``ConfigError`` if the host has no address, and for a URL with a password, which the output would show.
    """
    parsed = httpx.URL(address_of(url))
    if parsed.userinfo:
        raise ConfigError(f"--url {url.rpartition('@')[2]}: leave out user and password; only an API key is used")
    if not every:
        return [url]
    try:
        found = socket.getaddrinfo(parsed.host, parsed.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigError(f"--url {url}: {error}") from error
    return [str(parsed.copy_with(host=address)) for address in sorted({str(entry[4][0]) for entry in found})]


def main() -> None:
    """Entry point."""
    run_command(app, "ubert-serve-promote")


if __name__ == "__main__":
    main()
