"""A directory that LMDB keeps: opened, grown, and its errors explained."""

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TypeAlias, TypeVar

import lmdb

from ubert_model.errors import StoreError, StoreFullError

T = TypeVar("T")
Transaction: TypeAlias = "lmdb.Transaction[memoryview]"  # generic in the stubs alone

_ROOM_TO_WRITE = 1 << 20
"""Bytes: a disk with less is full for every transaction but the smallest."""
_RESTORE = "put a copy of the whole directory in its place, or remove it and run `ubert precompute`"
_DAMAGED = (lmdb.CorruptedError, lmdb.InvalidError, lmdb.PageNotFoundError)
_LEFT_UNWRITTEN = 1 << 20
"""Bytes at the end of the file that LMDB may count and not write: what a transaction has taken and freed again."""


class LmdbDirectory:
    """One transaction at a time over what lies in ``directory``, which is created if it is not there. Thread-safe.

    ``initial_map_bytes`` is address space, not disk: the map doubles whenever it is full.

    Every method raises ``StoreError`` if the directory cannot be used, and ``StoreFullError`` where its disk is full.
    """

    def __init__(self, directory: Path, *, initial_map_bytes: int) -> None:
        self._directory = directory
        # LMDB may only move its map while this process has no transaction.
        self._turn = Lock()
        with self._explained():
            if directory.is_file():
                raise StoreError(f"{directory} is a file and no state store: give a directory")
            directory.mkdir(parents=True, exist_ok=True)
            _require_own(directory)
            self._environment = lmdb.open(str(directory), map_size=initial_map_bytes, max_readers=512)
            self._require_whole()
            # A killed reader's slot would keep the pages it saw from ever being used again.
            self._environment.reader_check()

    def transact(self, work: Callable[[Transaction], T], *, write: bool = False) -> T:
        """Run ``work`` in one transaction; again, from its start, whenever the map was full or had grown."""
        with self._turn, self._explained():
            while True:
                try:
                    with self._environment.begin(write=write, buffers=True) as transaction:
                        return work(transaction)
                except lmdb.MapFullError:
                    # Room enough, perhaps, were it not for a reader that was killed since.
                    if not self._environment.reader_check():
                        self._environment.set_mapsize(2 * self._environment.info()["map_size"])
                except lmdb.MapResizedError:
                    self._environment.set_mapsize(0)  # another process has grown it: adopt its size

    def last_transaction(self) -> int:
        """The number of the last write of any process, which takes no transaction to read."""
        with self._turn, self._explained():
            return int(self._environment.info()["last_txnid"])

    def close(self) -> None:
        with self._turn:
            self._environment.close()

    def _require_whole(self) -> None:
        """Whoever reads a page that the file lacks is ended by the system, without a word."""
        size = (self._environment.info()["last_pgno"] + 1) * self._environment.stat()["psize"]
        file = self._directory / "data.mdb"
        found = file.stat().st_size
        if found + _LEFT_UNWRITTEN < size:
            self._environment.close()
            raise StoreError(f"{file} is cut short, {found} of {size} bytes: {_RESTORE}")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (lmdb.Error, OSError) as error:
            if _no_room(error, self._directory):
                raise StoreFullError(
                    f"the disk of the state store in {self._directory} is full: make room, drop an old namespace, or "
                    "use a smaller codec"
                ) from error
            remedy = _remedy(error)
            raise StoreError(f"the state store in {self._directory} cannot be used: {error}{remedy}") from error


def _require_own(directory: Path) -> None:
    """Raise ``StoreError`` for a directory in which other things lie, and no store."""
    if (directory / "data.mdb").exists():
        return
    foreign = sorted({path.name for path in directory.iterdir()} - {"lock.mdb", "lost+found"})
    if foreign:
        raise StoreError(
            f"{directory} holds {foreign[0]} and no state store: give a new directory, or one that "
            "`ubert precompute` wrote"
        )


def _no_room(error: Exception, directory: Path) -> bool:
    """The write that fills a disk is cut short, which LMDB takes for a broken disk; those after it find no room."""
    cut_short = isinstance(error, lmdb.Error) and getattr(error, "code", None) == errno.EIO
    return isinstance(error, lmdb.DiskError) or (cut_short and shutil.disk_usage(directory).free < _ROOM_TO_WRITE)


def _remedy(error: Exception) -> str:
    if isinstance(error, _DAMAGED):
        return f": {_RESTORE}"
    if getattr(error, "code", None) in (errno.EACCES, errno.EROFS):
        return ": let this user write there, as whoever reads has to, too"
    return ""
