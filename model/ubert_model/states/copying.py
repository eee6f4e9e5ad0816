"""Copying states between stores."""

from collections.abc import Callable, Sequence
from contextlib import suppress

from ubert_model.errors import InputError, StoreError
from ubert_model.review import ReviewEntry, Side
from ubert_model.running.batches import batches
from ubert_model.states.checking import listed_reviews
from ubert_model.states.leases import LEASE_S, holder_name
from ubert_model.states.records import dropped_meanwhile
from ubert_model.states.store import MaintenanceStore

ENTITIES_A_BATCH = 100
REVIEWS_A_BATCH = 256


def copy_namespace(
    source: MaintenanceStore,
    target: MaintenanceStore,
    version: str,
    *,
    advance: Callable[[int], object] = lambda _: None,
) -> int:
    """Copy what ``target`` lacks of a namespace, in batches; returns the number of reviews copied with their states.

    A killed copy can be started again and resumes. ``advance`` is called with the number of further users and items
    done. A review whose state the source has lost is copied without one, and one that a single list names into both
    lists: what was lost by accident stays missing, and is not taken for removed. Finished shards are copied last.
    Meanwhile the namespace is held in both stores, or in the target alone if the source takes no writes.

    Raises ``InputError`` if the source has no such version, ``ForeignStateError`` if the target has another namespace
    of that version, ``StoreError`` if either store has dropped the namespace nevertheless.
    """
    namespace = next((known for known in source.namespaces() if known.version == version), None)
    if namespace is None:
        raise InputError(f"no namespace {version!r} in the source: give one that `ubert states ls` lists")
    # Scans, which may take longer than a lease lasts: so before the first.
    owners = {side: source.entities(version, side) for side in Side}
    holder = holder_name()
    target.open_namespace(namespace)
    copied = 0
    try:
        for side, all_entities in owners.items():
            for entities in batches(all_entities, ENTITIES_A_BATCH):
                for entries in batches(listed_reviews(source, version, side, entities), REVIEWS_A_BATCH):
                    # If it were dropped now, the copy would go on writing states that no list of namespaces shows.
                    target.hold(version, holder, LEASE_S)
                    with suppress(StoreError):  # a replica, or a server without memory, can still be copied from
                        source.hold(version, holder, LEASE_S)
                    copied += _copy_batch(source, target, version, side, entries)
                advance(len(entities))
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
    source: MaintenanceStore, target: MaintenanceStore, version: str, side: Side, entries: Sequence[ReviewEntry]
) -> int:
    """Copy what the target lacks of reviews that lists of ``side`` name."""
    absences = target.missing(version, entries)
    missing = [entry for entry, absent in zip(entries, absences, strict=True) if absent]
    states = source.states(version, [entry.review_id for entry in missing])
    reviews = [(entry, state) for entry, state in zip(missing, states, strict=True) if state is not None]
    if reviews:
        target.put(version, reviews, _texts(source, version, [entry for entry, _ in reviews]))
    stateless = [entry for entry, state in zip(missing, states, strict=True) if state is None]
    # Whoever deletes a review removes its lines before its state: one that is listed even now has lost its state.
    owners = sorted({side.entity(entry) for entry in stateless})
    listed = {entry.review_id for entry in listed_reviews(source, version, side, owners)}
    lost = [entry for entry in stateless if entry.review_id in listed]
    if lost:
        target.put_texts(version, _texts(source, version, lost))
        target.put_lines(version, lost)
    return len(reviews)


def _texts(source: MaintenanceStore, version: str, entries: Sequence[ReviewEntry]) -> list[tuple[str, str]]:
    review_ids = [entry.review_id for entry in entries]
    texts = zip(review_ids, source.texts(version, review_ids), strict=True)
    return [(review_id, text) for review_id, text in texts if text is not None]
