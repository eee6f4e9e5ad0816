"""Moving states between stores."""

from collections.abc import Callable, Sequence
from contextlib import suppress

from ubert_model.errors import InputError, StoreError
from ubert_model.running.batches import batches
from ubert_model.states.holding import HELD_S, holder_name
from ubert_model.states.records import dropped_meanwhile
from ubert_model.states.review import ReviewEntry
from ubert_model.states.store import MendableStore, StateStore


def copy_namespace(
    source: StateStore,
    target: MendableStore,
    version: str,
    *,
    users_a_batch: int = 500,
    reviews_a_batch: int = 256,
    advance: Callable[[int], None] = lambda _: None,
) -> int:
    """Copy what ``target`` lacks of a namespace, batch by batch; the number of reviews copied.

    Killed and started again, it goes on. ``advance`` hears how many further users are done. Reviews whose state the
    source has lost are passed over: they stay missing. What the source knows of finished shards comes last. Both stores
    know the namespace as held meanwhile, but for a source that takes no writes. Raises ``InputError`` for a version
    that the source does not hold, ``ForeignStateError`` if the target holds another namespace by that version,
    ``StoreError`` if it has gone from either of them all the same.
    """
    namespace = next((known for known in source.namespaces() if known.version == version), None)
    if namespace is None:
        raise InputError(f"no namespace {version!r} in the source: see the versions that it lists")
    everyone = source.users(version)  # a scan, which may take longer than a namespace stays held
    holder = holder_name()
    target.open_namespace(namespace)
    copied = 0
    try:
        for users in batches(everyone, users_a_batch):
            entries = [entry for reviews in source.user_reviews(version, users) for entry in reviews]
            for batch in batches(entries, reviews_a_batch):
                # Dropped now, the namespace would be written on, and no list of namespaces would show what is there.
                target.hold(version, holder, HELD_S)
                with suppress(StoreError):  # a replica, or a server without memory, can be copied all the same
                    source.hold(version, holder, HELD_S)
                copied += _copy_batch(source, target, version, batch)
            advance(len(users))
    finally:
        for store in (source, target):
            with suppress(StoreError):  # it ends by itself, and may not hide what has gone wrong before
                store.release(version, holder)
    if namespace not in target.namespaces():
        raise dropped_meanwhile(version)
    if namespace not in source.namespaces():
        raise StoreError(
            f"namespace {version} has gone from the source while it was copied, so that reviews may be missing: "
            "`ubert precompute` to the target writes those of the review table"
        )
    for shard in source.finished_shards(version):
        target.finish_shard(version, shard)
    return copied


def copy_candidate_sets(source: StateStore, target: StateStore) -> int:
    """Copy the candidate sets, which belong to no namespace, whose names ``target`` lacks; how many."""
    there = set(target.candidate_sets())
    copied = 0
    for name in source.candidate_sets():
        items = None if name in there else source.candidates(name)
        if items is not None:  # nor deleted meanwhile
            target.put_candidates(name, items)
            copied += 1
    return copied


def _copy_batch(source: StateStore, target: MendableStore, version: str, entries: Sequence[ReviewEntry]) -> int:
    absences = target.missing(version, entries)
    wanted = [entry for entry, absent in zip(entries, absences, strict=True) if absent]
    states = source.states(version, [entry.review_id for entry in wanted])
    reviews = [(entry, state) for entry, state in zip(wanted, states, strict=True) if state is not None]
    names = [entry.review_id for entry, _ in reviews]
    texts = zip(names, source.texts(version, names), strict=True)
    target.put(version, reviews, [(name, text) for name, text in texts if text is not None])
    return len(reviews)
