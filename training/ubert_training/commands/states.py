"""`ubert states`: list, verify, drop and copy the contents of state stores."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from ubert_model.bundle import Bundle
from ubert_model.errors import ConfigError, InputError
from ubert_model.review import Side
from ubert_model.states import (
    FinishedShard,
    MaintenanceStore,
    Namespace,
    NamespaceCheck,
    NamespaceRepair,
    check_namespace,
    copy_candidate_sets,
    copy_namespace,
    open_existing_store,
    open_store,
    repair_namespace,
    url_or_content,
    without_password,
)
from ubert_training.commands import flags
from ubert_training.commands.options import console
from ubert_training.running.progress import progress_bar

EXAMPLES = 5
"""How many examples of each kind of problem are printed."""

app = typer.Typer(no_args_is_help=True, help="List, verify, drop and copy the contents of state stores.")

Version = Annotated[str, typer.Option("--namespace", help="Its version as `ls` shows it, or a prefix of it.")]
OneVersion = Annotated[
    str, typer.Option("--namespace", help="Its version, or a prefix of it. Unset: the only one in the store.")
]


@app.command("ls")
def ls_command(
    store: flags.Store,
    bundle: Annotated[list[Path] | None, typer.Option(help="Mark the namespace this bundle reads; repeatable.")] = None,
    count: Annotated[bool, typer.Option(help="Count users, items, states and bytes: reads every key.")] = True,
) -> None:
    """List the namespaces of a store, and which shards of a precompute are finished."""
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
        console.print(f"{without_password(store)} holds no namespace; `ubert precompute` creates one")


@app.command("verify")
def verify_command(
    store: flags.Store,
    namespace: OneVersion = "",
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Remove damaged entries, states and texts, and unlisted states; complete lists."),
    ] = False,
) -> None:
    """Read every list, state and text of a namespace; exit status 1 if a problem is found and not repaired."""
    with closing(open_existing_store(store)) as opened:
        chosen = choose_namespace(opened, namespace)
        with progress_bar(f"verify {chosen.version}", None) as advance:
            check = check_namespace(opened, chosen, advance)
        show_check(check)
        left = check.problems
        if repair:
            result = repair_namespace(opened, chosen, check)
            show_repair(result)
            left = result.problems
        elif left:
            console.print(
                "--repair fixes all but lost states, lost texts and lines of another format, and loses no rating that "
                "can still be read"
            )
    raise typer.Exit(1 if left else 0)


@app.command("drop")
def drop_command(
    store: flags.Store,
    namespace: Version,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Drop it even while a service, a precompute or a copy uses it.")
    ] = False,
) -> None:
    """Remove an unused namespace and everything in it. If killed, run the same command again."""
    with closing(open_existing_store(store)) as opened:
        chosen = choose_namespace(opened, namespace)
        if not force and (holders := opened.holders(chosen.version)):
            raise InputError(
                f"{chosen.version} is in use by {', '.join(holders)}: restart services without its bundle, let a "
                "precompute or a copy end, wait a minute if they were killed, or give --force"
            )
        if not yes:
            if not sys.stdin.isatty():
                raise ConfigError(f"no terminal to confirm the removal of {chosen.version}: give --yes")
            described = f"{chosen.version} ({chosen.codec}, encoder {chosen.encoder_digest[:12]})"
            typer.confirm(f"Remove namespace {described} from {without_password(store)} permanently?", abort=True)
        removed = opened.drop_namespace(chosen.version)
    console.print(f"{chosen.version}: {removed:,} states removed")


@app.command("copy")
def copy_command(
    store: flags.Store,
    to: Annotated[str, typer.Option(callback=url_or_content, help="Store to copy to, of any kind.")],
    namespace: OneVersion = "",
) -> None:
    """Copy a namespace and the candidate sets to another store; what is already there is kept.

    If killed, run the same command again.
    """
    with closing(open_existing_store(store)) as source, closing(open_store(to)) as target:
        chosen = choose_namespace(source, namespace)
        owners = sum(len(source.entities(chosen.version, side)) for side in Side)
        with progress_bar(f"copy {chosen.version}, users and items", owners) as advance:
            copied = copy_namespace(source, target, chosen.version, advance=advance)
        sets = copy_candidate_sets(source, target)
    console.print(f"{chosen.version}: {copied:,} reviews copied and {sets:,} candidate sets; the rest was there")


def choose_namespace(store: MaintenanceStore, prefix: str) -> Namespace:
    """The one namespace whose version begins with ``prefix``. Raises ``InputError`` if none does, or several do."""
    known = store.namespaces()
    found = [namespace for namespace in known if namespace.version.startswith(prefix)]
    if len(found) != 1:
        versions = ", ".join(f"{namespace.version} ({namespace.codec})" for namespace in known) or "none"
        raise InputError(f"--namespace {prefix!r} matches {len(found)} namespaces; the store has {versions}")
    return found[0]


def shards_done(finished: Sequence[FinishedShard]) -> str:
    """Finished shards by corpus and number of shards, such as ``2 of 8 shards (1, 5), 20 reviews of corpus …``."""
    by_division: dict[tuple[str, int], list[FinishedShard]] = {}
    for shard in finished:
        by_division.setdefault((shard.corpus, shard.shards), []).append(shard)
    parts = []
    for (corpus, shards), done in by_division.items():
        numbers = "all" if len(done) == shards else ", ".join(str(shard.number) for shard in done)
        reviews = sum(shard.reviews for shard in done)
        parts.append(f"{len(done)} of {shards} shards ({numbers}), {reviews:,} reviews of corpus {corpus[:8]}")
    return "; ".join(parts)


def show_check(check: NamespaceCheck) -> None:
    """Print how many problems there are of each kind, with some examples."""
    kinds: dict[str, Sequence[str]] = {
        "listed, but without a state": check.missing,
        "damaged states": [f"{review_id}: {reason}" for review_id, reason in check.damaged],
        "damaged texts": check.damaged_texts,
        "in one of two lists only": [entry.review_id for entry in check.one_sided],
        "states that no list names": check.unlisted,
        "damaged lists": [damaged.reason for damaged in check.damaged_lists],
    }
    console.print(f"{check.reviews:,} reviews checked, {check.problems:,} problems")
    _show_kinds(kinds)


def show_repair(result: NamespaceRepair) -> None:
    """Print how many reviews were repaired, and the problems that are left with their remedy."""
    kinds: dict[str, Sequence[str]] = {
        "listed, but without a state": result.missing,
        "damaged texts removed": result.lost_texts,
        "damaged entries removed that no other list replaces": result.lost_lines,
        "lists that cannot be read": [unreadable.reason for unreadable in result.unreadable],
    }
    console.print(f"{result.repaired:,} reviews repaired, {result.problems:,} problems left")
    _show_kinds(kinds)
    if result.missing or result.lost_lines:
        console.print("`ubert precompute` writes what is missing; what came by POST /reviews must be sent again")
    if result.lost_texts:
        console.print("`ubert precompute --texts` writes texts again")


def _show_kinds(kinds: Mapping[str, Sequence[str]]) -> None:
    for kind, found in kinds.items():
        if found:
            console.print(f"  {kind}: {len(found):,}")
            for example in found[:EXAMPLES]:
                console.print(f"    {example}")


def _holdings(store: MaintenanceStore, namespace: Namespace) -> str:
    states = size = 0
    with progress_bar(f"counting {namespace.version}", None) as advance:
        for _, state_size in store.state_sizes(namespace.version):
            states, size = states + 1, size + state_size
            advance(1)
    users, items = (len(store.entities(namespace.version, side)) for side in Side)
    return f"{states:,} reviews of {users:,} users on {items:,} items, {size / 1e6:,.1f} MB of states"
