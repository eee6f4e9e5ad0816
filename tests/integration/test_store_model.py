"""A store compared with a model, a few dictionaries, after every step of random histories with killed writes."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from support.killed_writes import finishes_before_kill
from support.store_contents import OTHER_VERSION, VERSION, contents, namespace_of, review_of
from ubert_model.review import ReviewEntry, Side
from ubert_model.states import (
    FinishedShard,
    MaintenanceStore,
    Revision,
    entity_mark,
    lmdb_store,
    marks_of,
    open_store,
    state_mark,
)

NAMES, USERS, ITEMS = ["r", "r\0", "r:1", "{r}"], ["u", "u:"], ["i", "u"]

names = st.sampled_from(NAMES)
entries = st.builds(
    review_of,
    names,
    st.sampled_from(USERS),
    st.sampled_from(ITEMS),
    timestamp=st.integers(min_value=-1, max_value=2),
    surplus=st.floats(allow_nan=False, allow_infinity=False, width=32),
)
reviews = st.lists(st.tuples(entries, st.binary(min_size=1, max_size=3)), max_size=4)
texts = st.lists(st.tuples(names, st.sampled_from(["", "words"])), max_size=2)
# The number of writes before the kill, after which the operation is repeated.
kills = st.none() | st.integers(min_value=0, max_value=9)


class StoreMachine(RuleBasedStateMachine):
    """One namespace, in ``store`` and in the model: ``states``, ``texts`` and ``lists``."""

    def __init__(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.url = url
        self.monkeypatch = monkeypatch
        self.store: MaintenanceStore = open_store(url)

    @initialize()
    def empty(self) -> None:
        self.store.drop_namespace(VERSION)
        self._open_empty()

    @rule(written=reviews, given=texts, killed_after=kills)
    def put(
        self, written: list[tuple[ReviewEntry, bytes]], given: list[tuple[str, str]], killed_after: int | None
    ) -> None:
        listed = [entry for entry, _ in written]
        without_state = self._listed_without_state()
        if killed_after is not None:
            finishes_before_kill(lambda: self.store.put(VERSION, written, given), killed_after, self.monkeypatch)
            assert self._listed_without_state() <= without_state
        self._write(lambda: self.store.put(VERSION, written, given), marks_of(listed), None)
        for entry, state in written:
            self.states[entry.review_id] = state
            self.texts.pop(entry.review_id, None)
        self._add_lines(listed)
        self.texts |= dict(given)

    @rule(listed=st.lists(entries, max_size=3), killed_after=kills)
    def put_lines(self, listed: list[ReviewEntry], killed_after: int | None) -> None:
        self._write(lambda: self.store.put_lines(VERSION, listed), marks_of(listed), killed_after)
        self._add_lines(listed)

    @rule(deleted=st.lists(entries, max_size=3), killed_after=kills)
    def delete(self, deleted: list[ReviewEntry], killed_after: int | None) -> None:
        self._write(lambda: self.store.delete(VERSION, deleted), marks_of(deleted), killed_after)
        for entry in deleted:
            self.states.pop(entry.review_id, None)
            self.texts.pop(entry.review_id, None)
            for side in Side:
                self.lists[side][side.entity(entry)].pop(entry.review_id, None)

    @rule(deleted=st.lists(names, max_size=2), killed_after=kills)
    def delete_states(self, deleted: list[str], killed_after: int | None) -> None:
        marks = set(map(state_mark, deleted))
        self._write(lambda: self.store.delete_states(VERSION, deleted), marks, killed_after)
        for name in deleted:
            self.states.pop(name, None)

    @rule(side=st.sampled_from(Side), place=st.integers(min_value=0, max_value=1))
    def remove_all_lines(self, side: Side, place: int) -> None:
        entity = (USERS if side is Side.USER else ITEMS)[place]
        lines = list(self.store.lines(VERSION, side, entity))
        self._write(lambda: self.store.remove_lines(VERSION, side, entity, lines), {entity_mark(side, entity)}, None)
        self.lists[side].pop(entity, None)

    @rule(given=texts)
    def put_texts(self, given: list[tuple[str, str]]) -> None:
        self.store.put_texts(VERSION, given)
        self.texts |= dict(given)

    @rule(killed_after=kills)
    def drop(self, killed_after: int | None) -> None:
        if killed_after is not None:
            self._drop_that_is_killed(killed_after)
        removed = self.store.drop_namespace(VERSION)
        assert removed == len(self.states) or (killed_after is not None and removed < len(self.states))
        assert self.store.changes(VERSION, self.revision).marks is None
        assert self.store.namespaces() == []
        self._open_empty()

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = open_store(self.url)

    @invariant()
    def store_equals_model(self) -> None:
        lists = {
            side: {entity: sorted_list(lines.values()) for entity, lines in sorted(of_side.items()) if lines}
            for side, of_side in self.lists.items()
        }
        assert contents(self.store, VERSION) == {
            "users": lists[Side.USER],
            "items": lists[Side.ITEM],
            "states": self.states,
            "texts": {name: self.texts.get(name) for name in self.states},
            "shards": [],
        }
        assert self.store.texts(VERSION, NAMES) == [self.texts.get(name) for name in NAMES]
        lengths = {(side, entity): len(lines) for side, of_side in lists.items() for entity, lines in of_side.items()}
        assert {(side, entity): length for side, entity, length in self.store.list_lengths(VERSION)} == lengths
        assert contents(self.store, OTHER_VERSION)["states"] == {}

    def teardown(self) -> None:
        self.store.close()

    def _open_empty(self) -> None:
        self.states: dict[str, bytes] = {}
        self.texts: dict[str, str] = {}
        self.lists: dict[Side, dict[str, dict[str, ReviewEntry]]] = {side: defaultdict(dict) for side in Side}
        self.store.open_namespace(namespace_of())
        self.revision = self.store.put_lines(VERSION, [])

    def _drop_that_is_killed(self, killed_after: int) -> None:
        """What is left stays in the list of namespaces; and nothing says that it is complete."""
        self.store.finish_shard(VERSION, FinishedShard(corpus="c", shards=1, number=1, reviews=1))
        before = self._reviews_and_texts()
        with self.monkeypatch.context() as patched:
            patched.setattr(lmdb_store, "_KEYS_PER_DROP", 1)
            finishes_before_kill(lambda: self.store.drop_namespace(VERSION), killed_after, self.monkeypatch)
        left = self._reviews_and_texts()
        assert not any(left) or self.store.namespaces() == [namespace_of()]
        assert left == before or self.store.finished_shards(VERSION) == []

    def _reviews_and_texts(self) -> list[Any]:
        held = contents(self.store, VERSION)
        texts = self.store.texts(VERSION, NAMES)
        return [held["users"], held["items"], held["states"], [text for text in texts if text is not None]]

    def _listed_without_state(self) -> set[str]:
        lists = self.store.review_lists(VERSION, users=USERS, items=ITEMS)
        listed = {entry.review_id for of_side in lists for reviews in of_side for entry in reviews}
        return listed - {name for name, _ in self.store.state_sizes(VERSION)}

    def _add_lines(self, listed: Iterable[ReviewEntry]) -> None:
        for entry in listed:
            for side in Side:
                self.lists[side][side.entity(entry)][entry.review_id] = entry

    def _write(self, write: Callable[[], Revision], marks: set[bytes], killed_after: int | None) -> None:
        """Write, after a killed attempt if ``killed_after`` is given, and check that ``marks`` are the changes."""
        if killed_after is not None:
            finishes_before_kill(write, killed_after, self.monkeypatch)
        revision = write()
        changes = self.store.changes(VERSION, self.revision)
        assert (changes.revision, changes.marks) == (revision, frozenset(marks))
        self.revision = revision


def sorted_list(lines: Iterable[ReviewEntry]) -> Sequence[ReviewEntry]:
    return sorted(lines, key=lambda entry: entry.recency, reverse=True)


def test_a_store_equals_its_model_after_every_step(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run_state_machine_as_test(
        lambda: StoreMachine(store_url, monkeypatch),  # type: ignore[arg-type]  # typed as a class; a function will do
        settings=settings(max_examples=30, stateful_step_count=15),
    )
