"""An LMDB environment in a directory: opened, grown on demand, with errors that name the remedy."""

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TypeAlias, TypeVar

import lmdb

from ubert_model.errors import StoreError, StoreFullError, StoreUnavailableError

T = TypeVar("T")
Transaction: TypeAlias = "lmdb.Transaction[memoryview]"  # generic in the stubs alone
FileId: TypeAlias = tuple[int, int]
"""Device and inode: as long as a file is open, no other file has the same."""

_MIN_FREE_BYTES = 1 << 20
"""A disk with less counts as full: nothing but the smallest transaction fits."""
_RESTORE = "put a copy of the whole directory in its place, or remove it and run `ubert precompute`"
_DAMAGED = (lmdb.CorruptedError, lmdb.InvalidError, lmdb.PageNotFoundError)
_MAX_UNWRITTEN_BYTES = 1 << 20
"""How much shorter the file may be than LMDB says: pages that a transaction took and freed again are never written."""
_WHOLE_S = 1.0
"""A directory put in the place of another may be a copy in progress until its data have been whole for so long."""


class LmdbDirectory:
    """Runs one transaction at a time on ``directory``, which is created if it does not exist. Thread-safe.

    ``initial_map_bytes`` is address space, not disk: the map doubles whenever it is full.

    The files of a directory that was moved away or removed could still be read and written, but are not the store: it
    is unavailable until the directory is back, or another is in its place.

    Every method raises ``StoreError`` if the directory cannot be used, ``StoreFullError`` if its disk is full, and
    ``StoreUnavailableError`` while the directory or its data is gone.
    """

    def __init__(self, directory: Path, *, initial_map_bytes: int) -> None:
        self._directory = directory
        self._data, self._lock_file = str(directory / "data.mdb"), str(directory / "lock.mdb")
        self._initial_map_bytes = initial_map_bytes
        # LMDB may only move its map while this process has no transaction.
        self._lock = Lock()
        self._openings = 0
        self._closed = False
        self._whole: tuple[FileId, float] | None = None
        """Which other data are in place of those in use, and since when they are whole."""
        with self._translated_errors():
            if directory.is_file():
                raise StoreError(f"{directory} is a file and not a state store: give a directory")
            directory.mkdir(parents=True, exist_ok=True)
            _require_store_or_empty(directory)
            self._open()

    @property
    def history(self) -> str:
        """Changes when another directory is used. Constant during a transaction."""
        return str(self._openings)

    def transact(self, work: Callable[[Transaction], T], *, write: bool = False) -> T:
        """Run ``work`` in one transaction, and start it over whenever the map was full or had grown."""
        with self._lock, self._translated_errors():
            self._follow_directory()
            return self._run(work, write=write)

    def last_transaction(self) -> tuple[int, str]:
        """The number of the last write by any process, and the history it belongs to. Needs no transaction to read."""
        with self._lock, self._translated_errors():
            self._follow_directory()
            return int(self._environment.info()["last_txnid"]), self.history

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._environment.close()

    def _run(self, work: Callable[[Transaction], T], *, write: bool) -> T:
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

    def _open(self) -> None:
        self._opened: FileId | None = None  # until this has succeeded: it is tried again
        self._environment = lmdb.open(
            str(self._directory), map_size=self._initial_map_bytes, max_readers=512, create=False
        )
        self._complete_file()
        # The slot of a killed reader would keep the pages that it saw from ever being reused.
        self._environment.reader_check()
        self._openings += 1
        self._opened, self._opened_lock = _id_of(os.stat(self._data)), _id_of(os.stat(self._lock_file))

    def _follow_directory(self) -> None:
        """Use the directory that has this name now: costs a microsecond or two unless it is another.

        Raises ``StoreUnavailableError`` and ``StoreError``.
        """
        data = _found(self._data)
        if data is None:
            raise StoreUnavailableError(
                f"the state store in {self._directory} is away: there is no {self._data}; put the directory back"
            )
        if _id_of(data) != self._opened and not self._closed:
            self._use_another(data)

    def _use_another(self, data: os.stat_result) -> None:
        # A lock file tells processes how far the data beside it are written. With other data it would mislead them.
        lock = _found(self._lock_file)
        if self._opened is not None and lock is not None and _id_of(lock) == self._opened_lock:
            raise StoreError(
                f"{self._data} was replaced while it was in use, without lock.mdb: put a whole directory in the place "
                "of this one, or restart all processes that use it"
            )
        if not self._is_whole(data):
            self._whole = None
        elif self._whole is None or self._whole[0] != _id_of(data):
            self._whole = _id_of(data), time.monotonic()
        if self._whole is None or time.monotonic() - self._whole[1] < _WHOLE_S:
            raise StoreUnavailableError(
                f"the state store in {self._directory} was replaced: it is used once its data have been whole for "
                f"{_WHOLE_S:g} s"
            )
        self._environment.close()
        self._open()

    def _is_whole(self, data: os.stat_result) -> bool:
        """Neither writes nor locks: if it is being copied, that would damage the copy, or end the process."""
        try:
            with lmdb.open(str(self._directory), readonly=True, lock=False, create=False) as environment:
                return data.st_size + _MAX_UNWRITTEN_BYTES >= _bytes_of(environment)
        except lmdb.Error:
            return False

    def _complete_file(self) -> None:
        """Reading a page beyond the file's end would kill the process (SIGBUS), so refuse a file that is cut short, and
        append what may never have been written. Should that have been cut off after all, LMDB rejects the zeros.

        Raises ``StoreError``.
        """
        size = _bytes_of(self._environment)
        file = self._directory / "data.mdb"
        found = file.stat().st_size
        if found + _MAX_UNWRITTEN_BYTES < size:
            self._environment.close()
            raise StoreError(f"{file} is cut short, {found} of {size} bytes: {_RESTORE}")
        if found < size:
            # In a transaction, so that no other process makes the file longer meanwhile.
            self._run(lambda _: os.truncate(file, max(size, file.stat().st_size)), write=True)

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


def _bytes_of(environment: lmdb.Environment) -> int:
    """The size of the data by their own account."""
    return int((environment.info()["last_pgno"] + 1) * environment.stat()["psize"])


def _found(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _id_of(file: os.stat_result) -> FileId:
    return file.st_dev, file.st_ino


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
    cut_short = isinstance(error, lmdb.Error) and getattr(error, "code", None) == errno.EIO
    return isinstance(error, lmdb.DiskError) or (cut_short and shutil.disk_usage(directory).free < _MIN_FREE_BYTES)


def _remedy(error: Exception) -> str:
    if isinstance(error, _DAMAGED):
        return f": {_RESTORE}"
    if getattr(error, "code", None) in (errno.EACCES, errno.EROFS):
        return ": let this user write there, which LMDB needs for reading, too"
    return ""
