"""The port that every state store implements. It moves bytes; the codec gives them meaning."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ubert_model.states.changes import Changes, Revision
from ubert_model.states.keys import Side
from ubert_model.states.review import ReviewEntry


@dataclass(frozen=True, kw_only=True)
class Namespace:
    """What a store says of one state version: everything below shares weights, tokenizer, length and codec (law 6).

    ``version`` is the lower-case hexadecimal digest that begins every key of the namespace.
    """

    version: str
    encoder_digest: str
    codec: str
    state_dim: int
    max_length: int


@dataclass(frozen=True, kw_only=True, order=True)
class FinishedShard:
    """A share of a precompute that ended: share ``number`` of ``shards``, from 1, of the reviews ``corpus`` names.

    ``reviews`` is how many reviews of the corpus fell into the share.
    """

    corpus: str
    shards: int
    number: int
    reviews: int


class StateStore(Protocol):
    """Encoder states and review lists by state version.

    Every method raises ``StoreUnavailableError`` when the store cannot be reached, ``StoreError`` when it refuses
    and ``InputError`` for a malformed version or identifier (1 to 256 UTF-8 bytes). All writes are idempotent, so a
    killed writer starts again by writing the same thing. No method touches more than one key in one command, so that
    a cluster may hold the keys anywhere; calls are pipelined: one round trip each (``put`` and ``delete`` three, their
    order being a promise), whatever the number of keys, until a pipeline would hold too much at once.
    """

    @property
    def local(self) -> bool:
        """Does asking for changes cost microseconds, since it asks no other machine?"""

    def open_namespace(self, namespace: Namespace) -> None:
        """Declare a namespace. Raises ``ForeignStateError`` if its version is taken by another description."""

    def namespaces(self) -> list[Namespace]:
        """All declared namespaces, ordered by version."""

    def drop_namespace(self, version: str) -> int:
        """Remove a namespace and everything in it; the number of states removed. Unknown version: 0."""

    def put(
        self, version: str, reviews: Sequence[tuple[ReviewEntry, bytes]], texts: Sequence[tuple[str, str]] = ()
    ) -> Revision:
        """Write the texts of some of these reviews, then states, then their lines in the user's and the item's review
        list; then announce them. Cut short anywhere, a review that was missing before is missing still, or has its
        text.

        A list never names a state that was not written before it. Raises ``StoreError``, with nothing written, for
        a state above 16 MiB. A review that changes its user or item must be deleted first: its old lines are not
        known here. Whoever has followed the changes up to the revision that is answered reads this write.
        A text that was kept of another of these reviews is removed: it may be another's now.
        """

    def put_texts(self, version: str, texts: Sequence[tuple[str, str]]) -> None:
        """Keep texts of reviews beside their states, by review."""

    def texts(self, version: str, review_ids: Sequence[str]) -> list[str | None]:
        """The text of each review, None where none is kept."""

    def delete(self, version: str, entries: Sequence[ReviewEntry]) -> Revision:
        """Remove the lines of both lists, then states and texts, then announce it. Unknown reviews are passed over."""

    def changes(self, version: str, since: Revision | None) -> Changes:
        """What was announced after ``since``; from None on, everything.

        What is read from the store after this was asked holds all that the answer tells of. Changes that can no
        longer be told (too many, or lost with the data) are answered as everything.
        """

    def candidate_sets(self) -> list[str]:
        """The names of all sets of candidates, which belong to no namespace, in order."""

    def put_candidates(self, name: str, items: Sequence[str]) -> None:
        """Keep a set of items under a name of 1 to 256 bytes, instead of the one that is there."""

    def candidates(self, name: str) -> list[str] | None:
        """The items of a set, in order; None where there is none."""

    def delete_candidates(self, name: str) -> bool:
        """Remove a set. Was there one?"""

    def missing(self, version: str, entries: Sequence[ReviewEntry]) -> list[bool]:
        """For each review: is its state or either of its list lines absent?"""

    def states(self, version: str, review_ids: Sequence[str]) -> list[bytes | None]:
        """The state of each review, None where the store has none (never written, deleted or evicted)."""

    def user_reviews(self, version: str, users: Sequence[str]) -> list[list[ReviewEntry]]:
        """Each user's review list, newest first; empty for an unknown user."""

    def item_reviews(self, version: str, items: Sequence[str]) -> list[list[ReviewEntry]]:
        """Each item's review list, newest first; empty for an unknown item."""

    def review_lists(
        self, version: str, *, users: Sequence[str], items: Sequence[str]
    ) -> tuple[list[list[ReviewEntry]], list[list[ReviewEntry]]]:
        """What ``user_reviews`` and ``item_reviews`` answer, in the round trip of one."""

    def users(self, version: str) -> list[str]:
        """All users with a review list, ordered by identifier. Scans the namespace: for tools, not for requests."""

    def items(self, version: str) -> list[str]:
        """All items with a review list, ordered by identifier. Scans the namespace: for tools, not for requests."""

    def state_sizes(self, version: str) -> Iterator[tuple[str, int]]:
        """Every stored state's review and size in bytes, in no order. Scans the namespace: for tools.

        What is written or deleted meanwhile may be told or not, and a server that rehashes may tell a state twice.
        """

    def delete_states(self, version: str, review_ids: Sequence[str]) -> Revision:
        """Remove states, leave the review lists as they are, announce it. Unknown reviews are passed over."""

    def finish_shard(self, version: str, shard: FinishedShard) -> None:
        """Keep that a share of a precompute has ended.

        Raises ``StoreError`` for a namespace that is not declared: dropped meanwhile, it has not all of the share, and
        what it lacks would pass for reviews that somebody has removed.
        """

    def finished_shards(self, version: str) -> list[FinishedShard]:
        """The shares that have ended, in order."""

    def list_lengths(self, version: str) -> Iterator[tuple[Side, str, int]]:
        """Every user and item with the length of its list, in no order, page by page: whoever has enough may stop.

        Scans the namespace. What is written meanwhile may be missing.
        """

    def claim(self, version: str, review_id: str, claimant: bytes) -> bytes | None:
        """Keep, for a week, who begins to write or to remove a review under this name, unless somebody has begun and
        not ended; that one, or None.

        A write that is cut short may leave a state that no list names; then the claim tells whose it is. A store whose
        writes are done whole or not at all keeps no claims.
        """

    def claimant(self, version: str, review_id: str) -> bytes | None:
        """Who has claimed the name and not yet ended; None if nobody has."""

    def unclaim(self, version: str, review_id: str) -> None:
        """End what :meth:`claim` has kept."""

    def hold(self, version: str, holder: str, seconds: float) -> None:
        """Keep for so many seconds that ``holder`` (1 to 256 bytes) uses a namespace, so that no tool drops it."""

    def release(self, version: str, holder: str) -> None:
        """End what :meth:`hold` has kept."""

    def holders(self, version: str) -> list[str]:
        """Who uses a namespace now, in order. Scans as :meth:`users` does: for tools."""

    def ping(self) -> None:
        """Raise ``StoreUnavailableError`` if the store does not answer."""

    def close(self) -> None:
        """Release connections and file handles. Safe to call twice."""


class MendableStore(StateStore, Protocol):
    """What tools that mend and move whole namespaces ask of a store beyond what a service does."""

    def put_lines(self, version: str, entries: Sequence[ReviewEntry]) -> Revision:
        """Write the lines of reviews in both lists, leave states and texts as they are, announce it."""

    def lines(self, version: str, side: Side, entity: str) -> dict[bytes, bytes]:
        """The lines of one list as they are stored, readable or not, by names that mean something to the store."""

    def remove_lines(self, version: str, side: Side, entity: str, names: Sequence[bytes]) -> Revision:
        """Remove lines of one list by the names that ``lines`` gave them, announce it."""
