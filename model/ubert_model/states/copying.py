"""Copying states between stores."""

from collections.abc import Callable, Sequence
from contextlib import suppress

from ubert_model.errors import InputError, StoreError
from ubert_model.review import ReviewEntry, Side
from ubert_model.running.batches import batches
from ubert_model.states.leases import LEASE_S, holder_name
from ubert_model.states.records import dropped_meanwhile
from ubert_model.states.store import MaintenanceStore


def copy_namespace(
    source: MaintenanceStore,
    target: MaintenanceStore,
    version: str,
    *,
    users_a_batch: int = 500,
    reviews_a_batch: int = 256,
    advance: Callable[[int], object] = lambda _: None,
) -> int:
    """Copy what ``target`` lacks of a namespace, in batches; returns the number of reviews copied.

    A killed copy can be started again and resumes. ``advance`` is called with the number of further users done. Reviews
    whose state the source has lost are skipped: they stay missing. Finished shards are copied last. Meanwhile the
    namespace is held in both stores, or in the target alone if the source takes no writes.

    Raises ``InputError`` if the source has no such version, ``ForeignStateError`` if the target has another namespace
    of that version, ``StoreError`` if either store has dropped the namespace nevertheless.
    """
    namespace = next((known for known in source.namespaces() if known.version == version), None)
    if namespace is None:
        raise InputError(f"no namespace {version!r} in the source: give one that `ubert states ls` lists")
    # A scan, which may take longer than a lease lasts: so before the first.
    all_users = source.entities(version, Side.USER)
    holder = holder_name()
    target.open_namespace(namespace)
    copied = 0
    try:
        for users in batches(all_users, users_a_batch):
            user_lists, _ = source.review_lists(version, users=users)
            entries = [entry for reviews in user_lists for entry in reviews]
            for batch in batches(entries, reviews_a_batch):
                # If it were dropped now, the copy would go on writing states that no list of namespaces shows.
                target.hold(version, holder, LEASE_S)
                with suppress(StoreError):  # a replica, or a server without memory, can still be copied from
                    source.hold(version, holder, LEASE_S)
                copied += _copy_batch(source, target, version, batch)
            advance(len(users))
    finally:
        for store in (source, target):
            with suppress(StoreError):  # the lease expires by itself; and an earlier error must not be hidden
                store.release(version, holder)
    if namespace not in target.namespaces():
        raise dropped_meanwhile(version)
    if namespace not in source.namespaces():
        raise StoreError(
            f"namespace {version} has gone from the source while it was copied, so reviews may be missing: run "
            "`ubert precompute` to the target to write those of the review table"
        )
    for shard in source.finished_shards(version):
        target.finish_shard(version, shard)
    return copied


def copy_candidate_sets(source: MaintenanceStore, target: MaintenanceStore) -> int:
    """Copy the candidate sets whose names ``target`` lacks; returns how many. They belong to no namespace."""
    present = set(target.candidate_sets())
    copied = 0
    for name in source.candidate_sets():
        items = None if name in present else source.candidates(name)
        if items is not None:  # None also if it was deleted meanwhile
            target.put_candidates(name, items)
            copied += 1
    return copied


def _copy_batch(
    source: MaintenanceStore, target: MaintenanceStore, version: str, entries: Sequence[ReviewEntry]
) -> int:
    absences = target.missing(version, entries)
    missing = [entry for entry, absent in zip(entries, absences, strict=True) if absent]
    states = source.states(version, [entry.review_id for entry in missing])
    reviews = [(entry, state) for entry, state in zip(missing, states, strict=True) if state is not None]
    review_ids = [entry.review_id for entry, _ in reviews]
    texts = zip(review_ids, source.texts(version, review_ids), strict=True)
    target.put(version, reviews, [(review_id, text) for review_id, text in texts if text is not None])
    return len(reviews)
