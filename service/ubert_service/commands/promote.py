"""``ubert-serve-promote``: let a bundle answer on all replicas of a service."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import httpx
import typer

from ubert_model.errors import ConfigError, InputError
from ubert_service.client import Client, ClientError, RetryPolicy
from ubert_service.client.calls import address_of
from ubert_service.commands.command_line import new_app, run_command

_SHOWN = 12
_ONE_ANSWER = RetryPolicy(attempts=3, deadline_s=10.0)

app = new_app()


@dataclass(frozen=True, kw_only=True)
class Replica:
    """One process, and what it said it runs."""

    url: str
    live: str
    shadow: str | None

    def __str__(self) -> str:
        shadow = "none" if self.shadow is None else self.shadow[:_SHOWN]
        return f"{self.url}  answers by {self.live[:_SHOWN]}, shadow {shadow}"


@app.command(help="Let a bundle answer on every replica: on all it is live or the shadow, or nothing is changed.")
def run(
    bundle: Annotated[str, typer.Argument(help="Its id as /version tells it, or how that begins.")],
    url: Annotated[list[str], typer.Option(help="Address of a replica itself, not of a balancer; repeat.")],
    all_addresses: Annotated[
        bool, typer.Option("--all-addresses", help="Each --url stands for every address of its host name.")
    ] = False,
    api_key: Annotated[
        str | None, typer.Option(envvar="UBERT_API_KEY", help="With the scope admin; best by its variable.")
    ] = None,
) -> None:
    urls = list(dict.fromkeys(address for one in url for address in _addresses(one, every=all_addresses)))
    try:
        replicas = [_ask(one, api_key) for one in urls]
    except ClientError as error:
        raise InputError(f"{error}; nothing was changed") from error
    wanted = _the_one(bundle, replicas)
    for replica in replicas:
        if replica.live != wanted and not _promoted(replica, wanted, api_key):
            break  # what has kept this one from it may keep the next, and few are sooner mended than many
    _tell(urls, wanted, api_key)


def _the_one(beginning: str, replicas: Sequence[Replica]) -> str:
    """The bundle that is meant. Raises ``InputError`` unless every replica has it loaded."""
    known = {bundle for replica in replicas for bundle in (replica.live, replica.shadow) if bundle is not None}
    found = [bundle for bundle in known if bundle.startswith(beginning)]
    lacking = [replica for replica in replicas if not {replica.live, replica.shadow} & set(found)]
    if len(found) != 1 or lacking:
        told = "; ".join(map(str, lacking or replicas))
        raise InputError(
            f"bundle {beginning!r} is not one that every replica has loaded, so nothing was changed: {told}; start "
            "them all with it as --bundle or --shadow-bundle"
        )
    return found[0]


def _promoted(replica: Replica, wanted: str, api_key: str | None) -> bool:
    try:
        with Client(replica.url, api_key=api_key, policy=_ONE_ANSWER) as client:
            client.promote(wanted)
    except ClientError as error:
        typer.echo(f"{replica.url}  was not promoted: {error}", err=True)
        return False
    return True


def _tell(urls: Sequence[str], wanted: str, api_key: str | None) -> None:
    """Who answers by what now. Exit status 1 unless all answer by ``wanted``."""
    left = 0
    for url in urls:
        try:
            replica = _ask(url, api_key)
        except ClientError as error:
            left += 1
            typer.echo(error)
        else:
            left += replica.live != wanted
            typer.echo(replica)
    if left:
        typer.echo(
            f"{left} of {len(urls)} do not answer by {wanted[:_SHOWN]}: give the same command again once they can, or "
            "go back by the id of the other bundle; both are safe to repeat",
            err=True,
        )
        raise typer.Exit(1)


def _ask(url: str, api_key: str | None) -> Replica:
    """Raises ``ClientError``, which names the replica."""
    try:
        with Client(url, api_key=api_key, policy=_ONE_ANSWER) as client:
            version = client.version()
    except ClientError as error:
        raise ClientError(f"{url}  {error}") from error
    return Replica(url=url, live=version.bundle, shadow=version.shadow)


def _addresses(url: str, *, every: bool) -> list[str]:
    """The URL itself, or it with every address that its host's name stands for.

    Raises ``ConfigError`` where there is none, and for one with a password, which would be shown with it.
    """
    parsed = httpx.URL(address_of(url))
    if parsed.userinfo:
        raise ConfigError(f"--url {url.rpartition('@')[2]}: leave user and password out; a key alone lets you in")
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
