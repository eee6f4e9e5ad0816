"""What is LMDB's own: a map that grows, several processes, killed ones among them, full disks and damaged files."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from support.processes import running
from support.store_contents import VERSION, namespace_of, numbered_reviews, review_of, state_of, user_reviews
from ubert_model.errors import StoreError, StoreFullError, StoreUnavailableError
from ubert_model.review import ReviewEntry
from ubert_model.states import lmdb_store, marks_of
from ubert_model.states.lmdb_store import LmdbStore
from ubert_model.states.records import unpack_line

SMALL_MAP = 64 * 1024
REVIEWS_A_BATCH = 20
STATE_BYTES = 3_000

WRITTEN_REVIEWS = 20_000
WRITTEN_USERS = sorted({entry.user for entry, _ in numbered_reviews(WRITTEN_REVIEWS, size=1)})

# Writes batch after batch until it is killed, and prints after each how many reviews it has written.
WRITER = f"""
import sys
from pathlib import Path
from support.store_contents import VERSION, namespace_of, numbered_reviews
from ubert_model.states.lmdb_store import LmdbStore
store = LmdbStore(Path(sys.argv[1]), initial_map_bytes={SMALL_MAP})
store.open_namespace(namespace_of())
reviews = numbered_reviews({WRITTEN_REVIEWS}, size={STATE_BYTES})
for first in range(0, len(reviews), {REVIEWS_A_BATCH}):
    store.put(VERSION, reviews[first : first + {REVIEWS_A_BATCH}])
    print(first + {REVIEWS_A_BATCH}, flush=True)
"""

# Begins to read, prints a line, and keeps its transaction open until it is killed.
READER = """
import sys, lmdb
transaction = lmdb.open(sys.argv[1], map_size=0, max_readers=512).begin()
transaction.stat()
print(flush=True)
sys.stdin.read()
"""


@contextmanager
def opened(directory: Path, **options: int) -> Iterator[LmdbStore]:
    store = LmdbStore(directory, **options)
    try:
        yield store
    finally:
        store.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A function that mounts a disk of the given size, or remounts it with another."""
    mounted: list[Path] = []

    def mount(size: str) -> Path:
        options = f"size={size}" + (",remount" if mounted else "")
        directory = tmp_path / "disk"
        directory.mkdir(exist_ok=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "none", str(directory)],
            check=False,
            capture_output=True,
            timeout=60,
        )
        if done.returncode:
            pytest.skip(f"this process may not mount a disk: {done.stderr.decode().strip()}")
        mounted.append(directory)
        return directory

    yield mount
    if mounted:
        subprocess.run(["umount", str(mounted[0])], check=True, timeout=60)


def writer_process(directory: Path) -> AbstractContextManager[subprocess.Popen[str]]:
    import_path = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    return running([sys.executable, "-c", WRITER, str(directory)], env=import_path)


def acknowledged_after(process: subprocess.Popen[str], batches: int) -> int:
    """Wait until the writer has written so many further batches; returns how many reviews it has written in all."""
    assert process.stdout is not None
    for _ in range(batches):
        line = process.stdout.readline()
    return int(line)


def assert_holds(store: LmdbStore, count: int) -> None:
    """Check that the first ``count`` reviews are complete, and that every listed review has its state."""
    reviews = numbered_reviews(count, size=STATE_BYTES)
    assert not any(store.missing(VERSION, [entry for entry, _ in reviews]))
    assert store.states(VERSION, [entry.review_id for entry, _ in reviews]) == [state for _, state in reviews]
    # One call for all users, so that all lists are of one transaction: a writer may still be running.
    listed = [entry for entries in user_reviews(store, VERSION, WRITTEN_USERS) for entry in entries]
    assert len(listed) % REVIEWS_A_BATCH == 0
    assert not any(store.missing(VERSION, listed))


def test_a_full_map_grows_and_the_batch_is_written_once(tmp_path: Path) -> None:
    with opened(tmp_path, initial_map_bytes=SMALL_MAP) as store:
        for size in (10, STATE_BYTES):
            store.put(VERSION, numbered_reviews(1_000, size=size))
        assert_holds(store, 1_000)
        assert store.drop_namespace(VERSION) == 1_000


def test_a_killed_reader_does_not_make_the_map_grow(tmp_path: Path) -> None:
    with opened(tmp_path, initial_map_bytes=1 << 20) as store:
        store.put_candidates("set", ["i"])
        command = [sys.executable, "-c", READER, str(tmp_path)]
        with running(command, stdin=subprocess.PIPE) as reader:
            assert reader.stdout is not None
            reader.stdout.readline()
        for number in range(500):
            store.put_candidates("set", [str(number)] * 100)
        assert (tmp_path / "data.mdb").stat().st_size <= 1 << 20


def test_a_killed_writer_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    with writer_process(tmp_path) as writer:
        acknowledged = acknowledged_after(writer, batches=30)
        writer.kill()
        assert writer.stdout is not None
        rest = writer.stdout.read().split()  # printed before the kill; the last line may be incomplete
        acknowledged = max([acknowledged, *map(int, rest[:-1])])
    with opened(tmp_path) as store:
        assert store.namespaces() == [namespace_of()]
        assert_holds(store, acknowledged)
        store.put(VERSION, numbered_reviews(acknowledged + REVIEWS_A_BATCH, size=STATE_BYTES))
        assert_holds(store, acknowledged + REVIEWS_A_BATCH)


def test_a_store_reads_what_another_process_writes_and_can_write_once_that_is_killed(tmp_path: Path) -> None:
    with opened(tmp_path, initial_map_bytes=SMALL_MAP) as reader, writer_process(tmp_path) as writer:
        for _ in range(5):
            assert_holds(reader, acknowledged_after(writer, batches=10))
        writer.kill()
        writer.wait(timeout=60)
        reader.put(VERSION, numbered_reviews(20, size=STATE_BYTES))
        assert_holds(reader, 20)


def test_writes_to_a_full_disk_raise_until_there_is_room(
    small_disk: Callable[[str], Path],
) -> None:
    with opened(small_disk("1M")) as store:
        store.open_namespace(namespace_of())
        store.put(VERSION, numbered_reviews(3))
        many = numbered_reviews(2_000, size=STATE_BYTES)
        for _ in range(2):  # the first write is cut short in the middle, the second finds no room from the start
            with pytest.raises(StoreFullError, match="is full: make room"):
                store.put(VERSION, many)
        assert store.states(VERSION, ["r0", "r3"]) == [state_of("r0"), None]
        small_disk("100M")
        store.put(VERSION, many)
        assert not any(store.missing(VERSION, [entry for entry, _ in many]))


def test_a_directory_that_cannot_hold_a_store_is_refused(tmp_path: Path) -> None:
    a_file = tmp_path / "file"
    a_file.write_text("x")
    garbage = tmp_path / "garbage"
    garbage.mkdir()
    (garbage / "data.mdb").write_bytes(b"not a database" * 10_000)
    for directory in (a_file, a_file / "below", garbage):
        with pytest.raises(StoreError, match=str(directory)):
            LmdbStore(directory)
    with pytest.raises(StoreError, match="put a copy of the whole directory in its place"):
        LmdbStore(garbage)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.put(VERSION, numbered_reviews(1_000, size=STATE_BYTES))
    file = tmp_path / "data.mdb"
    intact = file.read_bytes()
    file.write_bytes(intact[: len(intact) // 2])
    for _ in range(2):  # twice, because a refused directory must not stay open
        with pytest.raises(StoreError, match=rf"cut short, \d+ of {len(intact)} bytes: put a copy of the whole"):
            LmdbStore(tmp_path)
    file.write_bytes(intact)
    with opened(tmp_path) as store:
        assert store.states(VERSION, ["r999"]) == [state_of("r999", STATE_BYTES)]


def test_reading_a_file_that_lost_its_last_pages_raises_and_does_not_kill_the_process(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.put(VERSION, numbered_reviews(1_000, size=STATE_BYTES))
    file = tmp_path / "data.mdb"
    size = file.stat().st_size
    os.truncate(file, size - 64 * 1024)
    with opened(tmp_path) as store:
        assert file.stat().st_size == size  # otherwise reading would end this process by SIGBUS
        with pytest.raises(StoreError, match="put a copy of the whole directory in its place"):
            store.drop_namespace(VERSION)


def test_other_threads_may_read_while_a_list_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path) as store, ThreadPoolExecutor() as threads:
        store.put(VERSION, numbered_reviews(1))

        def unpack(*line: Any) -> ReviewEntry:
            threads.submit(store.ping).result(timeout=30)
            return unpack_line(*line)

        monkeypatch.setattr(lmdb_store, "unpack_line", unpack)
        assert [len(reviews) for reviews in user_reviews(store, VERSION, [numbered_reviews(1)[0][0].user])] == [1]


def test_a_store_whose_directory_is_gone_is_away_until_it_is_back(tmp_path: Path) -> None:
    used, moved = tmp_path / "store", tmp_path / "moved"
    with opened(used) as store:
        revision = store.put(VERSION, numbered_reviews(1))
        before = store.changes(VERSION, revision)
        used.rename(moved)
        for call in (store.ping, store.namespaces, partial(store.put, VERSION, numbered_reviews(2))):
            with pytest.raises(StoreUnavailableError, match=f"there is no {used / 'data.mdb'}; put the directory back"):
                call()
        with pytest.raises(StoreUnavailableError):
            store.changes(VERSION, revision)
        moved.rename(used)
        assert store.changes(VERSION, revision) == before
        store.put(VERSION, numbered_reviews(2))
        assert store.states(VERSION, ["r0", "r1"]) == [state_of("r0"), state_of("r1")]


def test_another_directory_in_its_place_is_not_used_until_a_restart(tmp_path: Path) -> None:
    used, moved = tmp_path / "store", tmp_path / "moved"
    with opened(used) as store:
        revision = store.put(VERSION, numbered_reviews(1))
        used.rename(moved)
        shutil.copytree(moved, used)
        for call in (
            store.ping,
            partial(store.states, VERSION, ["r0"]),
            partial(store.changes, VERSION, revision),
            partial(store.put, VERSION, numbered_reviews(2)),
        ):
            with pytest.raises(StoreUnavailableError, match="was replaced while this process had it open: restart the"):
                call()
    with opened(used) as store:
        assert store.states(VERSION, ["r0", "r1"]) == [state_of("r0"), None]


def test_a_read_only_disk_is_refused(small_disk: Callable[[str], Path]) -> None:
    with opened(small_disk("1M")):
        pass
    with pytest.raises(
        StoreError, match="Read-only file system: let this user write there, which LMDB needs for reading"
    ):
        LmdbStore(small_disk("1M,ro"))


@pytest.mark.parametrize(
    ("number", "refusal", "remedy"),
    [
        (errno.EACCES, StoreError, "Permission denied.*: let this user write there"),
        (errno.EROFS, StoreError, "Read-only file system.*: let this user write there"),
        (errno.ENOSPC, StoreFullError, "is full: make room"),
        (errno.EDQUOT, StoreFullError, "is full: make room"),
    ],
)
def test_a_directory_that_cannot_be_made_is_refused_with_the_remedy(
    number: int, refusal: type[StoreError], remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(directory: Path, **_: bool) -> None:
        raise OSError(number, os.strerror(number), str(directory))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(refusal, match=remedy):
        LmdbStore(tmp_path / "store")


def test_a_directory_can_be_opened_again_only_after_it_was_closed(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        with pytest.raises(StoreError, match="already open"):
            LmdbStore(tmp_path)
        store.put(VERSION, numbered_reviews(1))
    with opened(tmp_path) as store:
        assert store.states(VERSION, ["r0"]) == [state_of("r0")]


def test_the_oldest_remembered_change_is_included(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmdb_store, "REMEMBERED_CHANGES", 5)
    reviews = [review_of(f"r{number}", f"u{number}", f"i{number}") for number in range(9)]
    with opened(tmp_path) as store:
        revisions = [store.put(VERSION, [(review, b"s")]) for review in reviews]
        for place, revision in enumerate(revisions):
            assert store.changes(VERSION, revision).marks in (None, marks_of(reviews[place + 1 :]))
        assert store.changes(VERSION, revisions[3]).marks == frozenset(marks_of(reviews[4:]))


def test_expired_leases_are_removed_when_a_namespace_is_held(tmp_path: Path) -> None:
    def entry_count(store: LmdbStore) -> int:
        return int(store._directory.transact(lambda transaction: transaction.stat()["entries"]))

    with opened(tmp_path) as store:
        store.hold(VERSION, "killed/7", -1.0)
        before = entry_count(store)
        store.hold(VERSION, "shop/7", 60.0)
        assert entry_count(store) == before
        assert store.holders(VERSION) == ["shop/7"]


def test_a_closed_store_raises(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        pass
    with pytest.raises(StoreError, match="closed") as refusal:
        store.ping()
    assert not isinstance(refusal.value, StoreUnavailableError)
