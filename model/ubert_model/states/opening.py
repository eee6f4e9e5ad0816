"""From a URL to a store."""

from pathlib import Path

from ubert_model.errors import ConfigError
from ubert_model.states.lmdb_store import LmdbStore
from ubert_model.states.redis_address import REDIS_SCHEMES
from ubert_model.states.redis_store import RedisStore
from ubert_model.states.store import MendableStore


def open_store(url: str) -> MendableStore:
    """The store that a URL names: ``redis://host:6379/0``, ``rediss://``, ``unix://``, ``redis+cluster://host,host``,
    ``redis+sentinel://host,host/name/0`` or ``lmdb:/path/to/directory``.

    Raises ``ConfigError`` for any other and ``StoreError`` if it cannot be opened.
    """
    directory = _lmdb_directory(url)
    if directory is not None:
        return LmdbStore(directory)
    scheme, _, rest = url.partition(":")
    if scheme in REDIS_SCHEMES and rest.startswith("//"):
        return RedisStore(url)
    # The rest of the URL may hold a password.
    raise ConfigError(
        f"no state store for a URL that begins with {scheme + ':' if rest else url!r}: "
        f"use {', '.join(f'{known}://' for known in REDIS_SCHEMES)} or lmdb:/path/to/directory"
    )


def open_existing_store(url: str) -> MendableStore:
    """As :func:`open_store`, for whoever only makes use of what is there.

    Raises ``ConfigError`` for an LMDB directory without a store as well, which opening would make.
    """
    directory = _lmdb_directory(url)
    if directory is not None and not (directory / "data.mdb").is_file():
        raise ConfigError(
            f"{directory} holds no state store: give the directory that `ubert precompute` wrote, or write it by "
            f"`ubert precompute --store {url}`"
        )
    return open_store(url)


def without_password(url: str) -> str:
    """A store's URL as it may be printed: with neither user nor password, nor what stands behind a question mark."""
    scheme, _, rest = url.partition("?")[0].partition("//")
    return f"{scheme}//{rest.rpartition('@')[2]}" if rest else url


def absolute_url(url: str) -> str:
    """The same store, named so that a process in another directory finds it."""
    directory = _lmdb_directory(url)
    return url if directory is None else f"lmdb:{directory.absolute()}"


def _lmdb_directory(url: str) -> Path | None:
    scheme, _, rest = url.partition(":")
    named = rest.removeprefix("//")
    return Path(named) if scheme == "lmdb" and named else None
