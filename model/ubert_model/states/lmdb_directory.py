"""An LMDB environment in a directory: opened, grown on demand, with errors that name the remedy."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TypeAlias, TypeVar

import lmdb

from ubert_model.errors import StoreError, StoreFullError, StoreUnavailableError

T = TypeVar("T")
Transaction: TypeAlias = "lmdb.Transaction[memoryview]"  # generic in the stubs alone

_MIN_FREE_BYTES = 1 << 20
"""A disk with less counts as full: nothing but the smallest transaction fits."""
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_RESTORE = "put a copy of the whole directory in its place, or remove it and run `ubert precompute`"
_DAMAGED = (lmdb.CorruptedError, lmdb.InvalidError, lmdb.PageNotFoundError)
_MAX_UNWRITTEN_BYTES = 1 << 20
"""How much shorter the file may be than LMDB says: pages that a transaction took and freed again are never written."""


class LmdbDirectory:
    """Runs one transaction at a time on ``directory``, which is created if it does not exist. Thread-safe.

    ``initial_map_bytes`` is address space, not disk: the map doubles whenever it is full.

    The files of a directory that was moved away or removed could still be read and written, but are not the store: it
    is unavailable until the directory is back.

    Every method raises ``StoreError`` if the directory cannot be used, ``StoreFullError`` if its disk is full, and
    ``StoreUnavailableError`` while the directory is gone, or once another is in its place.
    """

    def __init__(self, directory: Path, *, initial_map_bytes: int) -> None:
        self._directory = directory
        self._data = directory / "data.mdb"
        # LMDB may only move its map while this process has no transaction.
        self._lock = Lock()
        with self._translated_errors():
            if directory.is_file():
                raise StoreError(f"{directory} is a file and not a state store: give a directory")
            directory.mkdir(parents=True, exist_ok=True)
            _require_store_or_empty(directory)
            self._environment = lmdb.open(str(directory), map_size=initial_map_bytes, max_readers=512)
            self._opened = self._file_now()
            self._complete_file()
            # The slot of a killed reader would keep the pages that it saw from ever being reused.
            self._environment.reader_check()

    def transact(self, work: Callable[[Transaction], T], *, write: bool = False) -> T:
        """Run ``work`` in one transaction, and start it over whenever the map was full or had grown."""
        with self._lock, self._translated_errors():
            self._require_in_place()
            while True:
                try:
                    with self._environment.begin(write=write, buffers=True) as transaction:
                        return work(transaction)
                except lmdb.MapFullError:
                    # A reader killed since may still pin old pages: reuse those before growing the map.
                    if not self._environment.reader_check():
                        self._environment.set_mapsize(2 * self._environment.info()["map_size"])
                except lmdb.MapResizedError:
                    self._environment.set_mapsize(0)  # another process has grown the map: adopt its size

    def last_transaction(self) -> int:
        """The number of the last write by any process. Needs no transaction to read."""
        with self._lock, self._translated_errors():
            self._require_in_place()
            return int(self._environment.info()["last_txnid"])

    def close(self) -> None:
        with self._lock:
            self._environment.close()

    def _file_now(self) -> tuple[int, int]:
        """Device and inode of the file that now bears the name of the data."""
        found = os.stat(self._data)
        return found.st_dev, found.st_ino

    def _require_in_place(self) -> None:
        """Raise ``StoreUnavailableError`` unless the data in use are those of the directory. Takes microseconds."""
        try:
            now = self._file_now()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreUnavailableError(
                f"the state store in {self._directory} is away: there is no {self._data}; put the directory back"
            ) from error
        if now != self._opened:
            raise StoreUnavailableError(
                f"the state store in {self._directory} was replaced while this process had it open: restart the process"
            )

    def _complete_file(self) -> None:
        """Reading a page beyond the file's end would kill the process (SIGBUS), so refuse a file that is cut short, and
        append what may never have been written. Should that have been cut off after all, LMDB rejects the zeros.

        Raises ``StoreError``.
        """
        size = (self._environment.info()["last_pgno"] + 1) * self._environment.stat()["psize"]
        found = self._data.stat().st_size
        if found + _MAX_UNWRITTEN_BYTES < size:
            self._environment.close()
            raise StoreError(f"{self._data} is cut short, {found} of {size} bytes: {_RESTORE}")
        if found < size:
            # In a transaction, so that no other process makes the file longer meanwhile.
            self.transact(lambda _: os.truncate(self._data, max(size, self._data.stat().st_size)), write=True)

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except (lmdb.Error, OSError) as error:
            if _is_disk_full(error, self._directory):
                raise StoreFullError(
                    f"the disk of the state store in {self._directory} is full: make room, drop an old namespace, or "
                    "use a smaller codec"
                ) from error
            remedy = _remedy(error)
            raise StoreError(f"the state store in {self._directory} cannot be used: {error}{remedy}") from error


def _require_store_or_empty(directory: Path) -> None:
    """Raise ``StoreError`` for a directory that holds other files and no store."""
    if (directory / "data.mdb").exists():
        return
    foreign = sorted({path.name for path in directory.iterdir()} - {"lock.mdb", "lost+found"})
    if foreign:
        raise StoreError(
            f"{directory} holds {foreign[0]} and no state store: give a new directory, or one that "
            "`ubert precompute` wrote"
        )


def _is_disk_full(error: Exception, directory: Path) -> bool:
    """The write that fills a disk is cut short, which LMDB reports as EIO; later ones fail for lack of space."""
    number = _number(error)
    cut_short = isinstance(error, lmdb.Error) and number == errno.EIO
    return number in _NO_SPACE or (cut_short and shutil.disk_usage(directory).free < _MIN_FREE_BYTES)


def _remedy(error: Exception) -> str:
    if isinstance(error, _DAMAGED):
        return f": {_RESTORE}"
    if _number(error) in (errno.EACCES, errno.EROFS):
        return ": let this user write there, which LMDB needs for reading, too"
    return ""


def _number(error: Exception) -> int | None:
    """The operating system's number of an error of LMDB or of Python."""
    return error.errno if isinstance(error, OSError) else getattr(error, "code", None)
