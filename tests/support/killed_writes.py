"""Work on a store that is killed between two of its writes."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from ubert_model.states.lmdb_directory import LmdbDirectory
from ubert_model.states.redis_pipelines import RedisPipelines


class Killed(BaseException):
    """Stands for the end of the process. Not an ``Exception``, so that no handler of errors catches it."""


def finishes_before_kill(work: Callable[[], object], writes: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Do ``work``, which is killed before a write (a transaction, or a command to a server) beyond the number given."""
    left = iter(range(writes))

    def count_down() -> None:
        if next(left, None) is None:
            raise Killed

    transact, write = LmdbDirectory.transact, RedisPipelines.write

    def counted_transact(directory: LmdbDirectory, work: Any, *, write: bool = False) -> Any:
        if write:
            count_down()
        return transact(directory, work, write=write)

    def counted_write(pipelines: RedisPipelines, commands: Iterable[Any]) -> list[Any]:
        replies = []
        for command in commands:
            count_down()
            replies += write(pipelines, [command])
        return replies

    with monkeypatch.context() as patched:
        patched.setattr(LmdbDirectory, "transact", counted_transact)
        patched.setattr(RedisPipelines, "write", counted_write)
        try:
            work()
        except Killed:
            return False
    return True
