"""Opening the store that a URL names."""

from pathlib import Path

from ubert_model.errors import ConfigError
from ubert_model.states.lmdb_store import LmdbStore
from ubert_model.states.redis_address import REDIS_SCHEMES
from ubert_model.states.redis_store import RedisStore
from ubert_model.states.store import MaintenanceStore


def open_store(url: str) -> MaintenanceStore:
    """The store that a URL names: ``redis://host:6379/0``, ``rediss://``, ``unix://``, ``redis+cluster://host,host``,
    ``redis+sentinel://host,host/name/0`` or ``lmdb:/path/to/directory``.

    Raises ``ConfigError`` for any other URL and ``StoreError`` if the store cannot be opened.
    """
    directory = _lmdb_directory(url)
    if directory is not None:
        return LmdbStore(directory)
    scheme, _, rest = url.partition(":")
    if scheme in REDIS_SCHEMES and rest.startswith("//"):
        return RedisStore(url)
    # Without the rest of the URL, which may hold a password.
    raise ConfigError(
        f"no state store for a URL that begins with {scheme + ':' if rest else url.rpartition('@')[2]!r}: "
        f"use {', '.join(f'{known}://' for known in REDIS_SCHEMES)} or lmdb:/path/to/directory"
    )


def open_existing_store(url: str) -> MaintenanceStore:
    """As :func:`open_store`, but creates no store: raises ``ConfigError`` for an LMDB directory that holds none."""
    if not holds_store(url):
        raise ConfigError(
            f"{_lmdb_directory(url)} holds no state store: give the directory that `ubert precompute` wrote, or write "
            f"it with `ubert precompute --store {url}`"
        )
    return open_store(url)


def holds_store(url: str) -> bool:
    """False for an LMDB directory without a store, where :func:`open_store` would create one."""
    directory = _lmdb_directory(url)
    return directory is None or (directory / "data.mdb").is_file()


def url_or_content(url: str) -> str:
    """The URL in the file that ``file:PATH`` names, which keeps a password out of arguments and environment; any other
    URL as it is. Raises ``ConfigError`` for a file that cannot be read or holds nothing.
    """
    scheme, _, path = url.partition(":")
    if scheme != "file":
        return url
    try:
        content = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"store {url}: {error}; give a file that holds the URL of the store") from error
    if not content:
        raise ConfigError(f"store {url}: the file is empty; write the URL of the store to it")
    return content


def without_password(url: str) -> str:
    """A store's URL without user, password and query, so that it may be printed."""
    scheme, _, rest = url.partition("?")[0].partition("//")
    return f"{scheme}//{rest.rpartition('@')[2]}" if rest else url


def absolute_url(url: str) -> str:
    """A URL of the same store for a process in another working directory."""
    directory = _lmdb_directory(url)
    return url if directory is None else f"lmdb:{directory.absolute()}"


def _lmdb_directory(url: str) -> Path | None:
    scheme, _, rest = url.partition(":")
    named = rest.removeprefix("//")
    return Path(named) if scheme == "lmdb" and named else None
