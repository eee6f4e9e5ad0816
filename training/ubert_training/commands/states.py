"""`ubert states`: see, check, remove and copy what state stores hold."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from ubert_model.bundle import Bundle
from ubert_model.errors import ConfigError, InputError
from ubert_model.states import (
    FinishedShard,
    Namespace,
    NamespaceCheck,
    NamespaceRepair,
    StateStore,
    check_namespace,
    copy_candidate_sets,
    copy_namespace,
    open_existing_store,
    open_store,
    repair_namespace,
    without_password,
)
from ubert_training.commands.options import console
from ubert_training.running.progress import progress_bar

SHOWN = 5
"""Examples of each kind of problem that are printed."""

app = typer.Typer(no_args_is_help=True, help="See, check, remove and copy what state stores hold.")

Store = Annotated[str, typer.Option(help="redis://…, rediss://…, redis+cluster://… or lmdb:DIRECTORY.")]
Version = Annotated[str, typer.Option("--namespace", help="Its version as `ls` shows it, or how that begins.")]
OneVersion = Annotated[
    str, typer.Option("--namespace", help="Its version, or how that begins; unset where the store has only one.")
]


@app.command("ls")
def ls_command(
    store: Store,
    bundle: Annotated[list[Path] | None, typer.Option(help="Tell which namespace this bundle reads; repeat.")] = None,
    count: Annotated[bool, typer.Option(help="Count users, items, states and bytes: reads every key.")] = True,
) -> None:
    """List the namespaces of a store, and which shards of a precompute have ended."""
    readers = [(path, Bundle.load(path).manifest.encoder_digest) for path in bundle or []]
    with closing(open_existing_store(store)) as opened:
        namespaces = opened.namespaces()
        for namespace in namespaces:
            lines = {
                "encoder": namespace.encoder_digest[:16],
                "read by": ", ".join(str(path) for path, digest in readers if digest == namespace.encoder_digest),
                "holds": _holdings(opened, namespace) if count else "",
                "precomputed": shards_done(opened.finished_shards(namespace.version)),
                "held by": ", ".join(opened.holders(namespace.version)) if count else "",
            }
            shape = f"{namespace.codec}, D = {namespace.state_dim}, at most {namespace.max_length} tokens a review"
            console.print(f"{namespace.version}  {shape}")
            for name, value in lines.items():
                if value:
                    console.print(f"  {name:<11}  {value}")
    if not namespaces:
        console.print(f"{without_password(store)} holds no namespace; `ubert precompute` makes one")


@app.command("verify")
def verify_command(
    store: Store,
    namespace: OneVersion = "",
    repair: Annotated[
        bool, typer.Option("--repair", help="Remove damaged lines and states and unlisted states, complete lists.")
    ] = False,
) -> None:
    """Read every list and every state of a namespace; exit status 1 if anything is wrong and stays so."""
    with closing(open_existing_store(store)) as opened:
        chosen = choose_namespace(opened, namespace)
        with progress_bar(f"verify {chosen.version}", None) as advance:
            check = check_namespace(opened, chosen, advance)
        show_check(check)
        left = check.problems
        if repair:
            repaired = repair_namespace(opened, chosen, check)
            show_repair(repaired)
            left = repaired.problems
        elif left:
            console.print("--repair mends all but missing states, and loses no rating that can still be read")
    raise typer.Exit(1 if left else 0)


@app.command("drop")
def drop_command(
    store: Store,
    namespace: Version,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Even while a service, a precompute or a copy uses it.")
    ] = False,
) -> None:
    """Remove a namespace that nobody uses, and everything in it. Killed, the same command goes on."""
    with closing(open_existing_store(store)) as opened:
        chosen = choose_namespace(opened, namespace)
        if not force and (holders := opened.holders(chosen.version)):
            raise InputError(
                f"{chosen.version} is used by {', '.join(holders)}: restart services without its bundle, let a "
                "precompute or a copy end, wait a minute for what was killed, or give --force"
            )
        if not yes:
            if not sys.stdin.isatty():
                raise ConfigError(f"nobody is here to confirm that {chosen.version} goes: give --yes")
            described = f"{chosen.version} ({chosen.codec}, encoder {chosen.encoder_digest[:12]})"
            typer.confirm(f"Remove namespace {described} from {without_password(store)} for good?", abort=True)
        removed = opened.drop_namespace(chosen.version)
    console.print(f"{chosen.version}: {removed:,} states removed")


@app.command("copy")
def copy_command(
    store: Annotated[str, typer.Option(help="Store to copy from.")],
    to: Annotated[str, typer.Option(help="Store to copy to, of any kind.")],
    namespace: OneVersion = "",
) -> None:
    """Copy a namespace, and the candidate sets, to another store: what is there already stays.

    Killed, the same command goes on.
    """
    with closing(open_existing_store(store)) as source, closing(open_store(to)) as target:
        chosen = choose_namespace(source, namespace)
        users = len(source.users(chosen.version))
        with progress_bar(f"copy {chosen.version}, users", users) as advance:
            copied = copy_namespace(source, target, chosen.version, advance=advance)
        sets = copy_candidate_sets(source, target)
    console.print(f"{chosen.version}: {copied:,} reviews copied and {sets:,} candidate sets, the others were there")


def choose_namespace(store: StateStore, prefix: str) -> Namespace:
    """The one namespace whose version begins so. Raises ``InputError`` where none does, or several."""
    known = store.namespaces()
    found = [namespace for namespace in known if namespace.version.startswith(prefix)]
    if len(found) != 1:
        versions = ", ".join(f"{namespace.version} ({namespace.codec})" for namespace in known) or "none"
        raise InputError(f"--namespace {prefix!r} fits {len(found)} namespaces; the store has {versions}")
    return found[0]


def shards_done(finished: Sequence[FinishedShard]) -> str:
    """For each corpus and division what has ended, such as ``2 of 8 shards (1, 5), 20 reviews``."""
    divisions: dict[tuple[str, int], list[FinishedShard]] = {}
    for shard in finished:
        divisions.setdefault((shard.corpus, shard.shards), []).append(shard)
    parts = []
    for (corpus, shards), done in divisions.items():
        numbers = "all" if len(done) == shards else ", ".join(str(shard.number) for shard in done)
        reviews = sum(shard.reviews for shard in done)
        parts.append(f"{len(done)} of {shards} shards ({numbers}), {reviews:,} reviews of corpus {corpus[:8]}")
    return "; ".join(parts)


def show_check(check: NamespaceCheck) -> None:
    """How many problems of each kind, with some examples."""
    kinds: dict[str, Sequence[str]] = {
        "listed, but without a state": check.missing,
        "damaged states": [f"{review_id}: {reason}" for review_id, reason in check.damaged],
        "in one of two lists only": [entry.review_id for entry in check.one_sided],
        "states that no list names": check.unlisted,
        "damaged lists": [damaged.reason for damaged in check.damaged_lists],
    }
    console.print(f"{check.reviews:,} reviews checked, {check.problems:,} problems")
    _show_kinds(kinds)


def show_repair(repaired: NamespaceRepair) -> None:
    """How much was mended, and what is left with the remedy."""
    kinds: dict[str, Sequence[str]] = {
        "listed, but without a state": repaired.missing,
        "damaged lines removed that no other list replaces": repaired.lost_lines,
        "lists that cannot be read": [unreadable.reason for unreadable in repaired.unreadable],
    }
    console.print(f"{repaired.mended:,} reviews mended, {repaired.problems:,} problems left")
    _show_kinds(kinds)
    if repaired.missing or repaired.lost_lines:
        console.print("`ubert precompute` writes what is missing; what came by POST /reviews must be sent again")


def _show_kinds(kinds: Mapping[str, Sequence[str]]) -> None:
    for kind, found in kinds.items():
        if found:
            console.print(f"  {kind}: {len(found):,}")
            for example in found[:SHOWN]:
                console.print(f"    {example}")


def _holdings(store: StateStore, namespace: Namespace) -> str:
    states = size = 0
    with progress_bar(f"counting {namespace.version}", None) as advance:
        for _, state_size in store.state_sizes(namespace.version):
            states, size = states + 1, size + state_size
            advance(1)
    users, items = len(store.users(namespace.version)), len(store.items(namespace.version))
    return f"{states:,} reviews of {users:,} users on {items:,} items, {size / 1e6:,.1f} MB of states"
