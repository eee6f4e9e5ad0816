"""The ports that every state store implements. They move bytes; the codec interprets them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ubert_model.review import ReviewEntry, Side
from ubert_model.states.changes import Changes, Revision


@dataclass(frozen=True, kw_only=True)
class Namespace:
    """The description of one state version: all its states share weights, tokenizer, length and codec (law 6).

    ``version`` is the lower-case hexadecimal digest that begins every key of the namespace.
    """

    version: str
    encoder_digest: str
    codec: str
    state_dim: int
    max_length: int


@dataclass(frozen=True, kw_only=True, order=True)
class FinishedShard:
    """A completed shard of a precompute: ``number`` of ``shards``, counted from 1, of the corpus with this digest.

    ``reviews`` is how many reviews of the corpus belong to the shard.
    """

    corpus: str
    shards: int
    number: int
    reviews: int


class StateStore(Protocol):
    """Encoder states and review lists by state version: what a service reads and writes.

    Every method raises ``StoreUnavailableError`` when the store cannot be reached, ``StoreError`` when it refuses
    and ``InputError`` for a malformed version or identifier (1 to 256 UTF-8 bytes).

    All writes are idempotent: a killed writer resumes by writing the same again. In a cluster no command touches
    more than one key, so the keys may be anywhere. Commands are pipelined: a call takes one round trip (writes take
    several, to guarantee their order) for any number of keys, until a pipeline or its replies would grow too large.
    """

    @property
    def local(self) -> bool:
        """Is the store on this machine, so that asking for changes costs only microseconds?"""

    def namespaces(self) -> list[Namespace]:
        """All declared namespaces, ordered by version."""

    def put(
        self, version: str, reviews: Sequence[tuple[ReviewEntry, bytes]], texts: Sequence[tuple[str, str]] = ()
    ) -> Revision:
        """Write the texts given, then states, then lines in the users' and items' review lists, then announce it all.

        So a list never names a state that was not written before it; and if the write is cut short, a review that was
        missing is either still missing or has its text. Texts of reviews that are written without one are removed: they
        may be outdated. A review that changes its user or item must be deleted first: the store does not know its old
        lines. Raises ``StoreError``, with nothing written, for a state above 16 MiB.

        Read-your-writes: whoever has followed the changes up to the revision returned reads this write.
        """

    def put_new(
        self, version: str, entry: ReviewEntry, state: bytes, texts: Sequence[tuple[str, str]] = ()
    ) -> Revision:
        """As ``put``, for a review that its lists did not hold when they were read.

        Of two pairs of user and item that write one id, whichever processes they use, the first wins: for the other
        it raises ``ReviewNameTakenError``, with nothing written. If a ``put_new`` or ``delete`` is cut short, the same
        pair can write the review again, unless a server without memory could not note whose the delete was.
        """

    def texts(self, version: str, review_ids: Sequence[str]) -> list[str | None]:
        """The text of each review, None if none is stored."""

    def delete(self, version: str, entries: Sequence[ReviewEntry]) -> Revision:
        """Remove the lines of both lists, then states and texts, then announce it. Unknown reviews are ignored."""

    def announce(self, version: str, marks: Iterable[bytes]) -> Revision:
        """Announce these marks again, as after a write that may have been cut short before it did, or whose copies on
        replicas are not confirmed. Whoever has followed the changes up to the revision returned has no older copies.
        """

    def changes(self, version: str, since: Revision | None) -> Changes:
        """What was announced after ``since``; None: anything may have changed.

        Reads that start after this call see every change in the answer. If the changes are no longer known (too many,
        or lost with the data), the answer is that anything may have changed.
        """

    def candidate_sets(self) -> list[str]:
        """The names of all candidate sets, in order. They belong to no namespace."""

    def put_candidates(self, name: str, items: Sequence[str]) -> None:
        """Store a candidate set under a name of 1 to 256 bytes, replacing any set of that name."""

    def candidates(self, name: str) -> list[str] | None:
        """The items of a candidate set, in order; None if it does not exist."""

    def delete_candidates(self, name: str) -> bool:
        """Remove a candidate set. Did it exist?"""

    def states(self, version: str, review_ids: Sequence[str]) -> list[bytes | None]:
        """The state of each review, None if the store has none (never written, deleted or evicted)."""

    def review_lists(
        self, version: str, *, users: Sequence[str] = (), items: Sequence[str] = ()
    ) -> tuple[list[list[ReviewEntry]], list[list[ReviewEntry]]]:
        """Each user's and each item's review list, newest first; empty for one unknown."""

    def list_lengths(self, version: str) -> Iterator[tuple[Side, str, int]]:
        """Every user and item with the length of its list, in no order. Reads page by page: the caller may stop early.

        Scans the namespace. What is written meanwhile may be missing.
        """

    def hold(self, version: str, holder: str, seconds: float) -> None:
        """Give ``holder`` (1 to 256 bytes) a lease of so many seconds on a namespace, or renew it: no tool drops it."""

    def release(self, version: str, holder: str) -> None:
        """End a holder's lease."""

    def ping(self) -> None:
        """Raise ``StoreUnavailableError`` if the store does not answer."""

    def close(self) -> None:
        """Release connections and file handles. Safe to call twice."""


class MaintenanceStore(StateStore, Protocol):
    """A ``StateStore`` that tools can also fill, check, repair, copy and drop namespaces with."""

    def open_namespace(self, namespace: Namespace) -> None:
        """Declare a namespace. Raises ``ForeignStateError`` if its version has another description already."""

    def drop_namespace(self, version: str) -> int:
        """Remove a namespace and everything in it; returns the number of states removed, 0 for an unknown version."""

    def holders(self, version: str) -> list[str]:
        """The current holders of leases on a namespace, in order. Scans the namespace."""

    def finish_shard(self, version: str, shard: FinishedShard) -> None:
        """Record that a shard of a precompute is complete.

        Raises ``StoreError`` for a namespace that is not declared: dropped meanwhile, it lacks some of the shard's
        reviews, which would then be taken for deleted ones.
        """

    def finished_shards(self, version: str) -> list[FinishedShard]:
        """The completed shards, in order."""

    def entities(self, version: str, side: Side) -> list[str]:
        """All users, or all items, with a review list, ordered by identifier. Scans the namespace."""

    def missing(self, version: str, entries: Sequence[ReviewEntry]) -> list[bool]:
        """For each review: is its state or either of its list lines absent?"""

    def state_sizes(self, version: str) -> Iterator[tuple[str, int]]:
        """Review identifier and size in bytes of every stored state, in no order. Scans the namespace.

        A state written or deleted meanwhile may be left out; one may come twice while a server rehashes or fails over.
        """

    def put_texts(self, version: str, texts: Sequence[tuple[str, str]]) -> None:
        """Store texts by review identifier, beside the states."""

    def put_lines(self, version: str, entries: Sequence[ReviewEntry]) -> Revision:
        """Write the lines of reviews in both lists but not their states or texts, and announce it."""

    def lines(self, version: str, side: Side, entity: str) -> dict[bytes, bytes]:
        """The lines of one list as they are stored, damaged or not, by the store's own names for them."""

    def remove_lines(self, version: str, side: Side, entity: str, names: Sequence[bytes]) -> Revision:
        """Remove lines of one list by their names in ``lines``, and announce it."""

    def delete_states(self, version: str, review_ids: Sequence[str]) -> Revision:
        """Remove states but not their lines in the review lists, and announce it. Unknown reviews are ignored."""

    def delete_texts(self, version: str, review_ids: Sequence[str]) -> None:
        """Remove texts but neither states nor lines. Unknown reviews are ignored."""
