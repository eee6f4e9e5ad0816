"""API keys, hashed at rest, and the scope that each path requires.

A key has 256 random bits, so a single SHA-256 hides it as well as a slow hash would, and costs only microseconds.
"""

import hashlib
import hmac
import secrets
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ubert_model.errors import ConfigError
from ubert_service.errors import ForbiddenError, UnauthenticatedError

AccessScope = Literal["read", "write", "admin"]

_SCOPES = ", ".join(get_args(AccessScope))
_KEY_BYTES = 32
_SCHEME = "bearer"
_OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/metrics", "/openapi.json"})
_OPEN_PREFIX = "/console/"
_READING_POSTS = frozenset({"/predict", "/rank", "/explain"})
_NAME_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"


def needed_scope(method: str, path: str) -> AccessScope | None:
    """The scope that a request needs; None: open to all. A path not named here needs the scope of its method, so a new
    route is closed until someone opens it.
    """
    if method in {"GET", "HEAD"}:
        return None if path in _OPEN_PATHS or path.startswith(_OPEN_PREFIX) else "read"
    if path.startswith("/admin/"):
        return "admin"
    return "read" if method == "POST" and path in _READING_POSTS else "write"


class ApiKey(BaseModel):
    """The hash and the scopes of a key; never the key itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$", repr=False)]
    scopes: Annotated[frozenset[AccessScope], Field(min_length=1)]

    def allows(self, needed: AccessScope) -> bool:
        """Does it have the scope ``needed``? ``admin`` includes ``read``: whoever may promote a bundle may see it."""
        return needed in self.scopes or (needed == "read" and "admin" in self.scopes)


_KeyTable = TypeAdapter(dict[Annotated[str, Field(pattern=_NAME_PATTERN)], ApiKey])


@dataclass(frozen=True)
class ApiKeys:
    """The keys of one service."""

    by_name: Mapping[str, ApiKey]

    @classmethod
    def read(cls, path: Path) -> Self:
        """The keys in a TOML file of tables from :func:`new_key`. Raises ``ConfigError``, which never shows a hash."""
        try:
            tables = _KeyTable.validate_python(tomllib.loads(path.read_text(encoding="utf-8")))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise ConfigError(f"API keys {path}: {where}: {first['msg']}; `ubert-serve-key` writes them") from error
        except (OSError, ValueError, RecursionError) as error:  # the last: deeply nested brackets
            raise ConfigError(f"API keys {path}: {error}") from error
        if not tables:
            raise ConfigError(
                f"API keys {path}: it holds no key, so nobody could call the service; make one with `ubert-serve-key`"
            )
        return cls(tables)

    def authorise(self, authorization: str | None, needed: AccessScope) -> str:
        """The name of the key in an ``Authorization`` header.

        Raises ``UnauthenticatedError`` and ``ForbiddenError``, which never show the key.
        """
        scheme, _, presented = (authorization or "").partition(" ")
        if scheme.lower() != _SCHEME or not presented.strip():
            raise UnauthenticatedError("send an API key in the header Authorization: Bearer KEY")
        digest = _digest(presented.strip())
        # Every key is compared, in constant time: the time taken reveals nothing about any of them.
        found = [name for name, key in self.by_name.items() if hmac.compare_digest(key.sha256, digest)]
        if not found:
            raise UnauthenticatedError("the API key is not known; ask whoever runs this service for one")
        if not self.by_name[found[0]].allows(needed):
            raise ForbiddenError(f"the API key {found[0]!r} lacks the scope {needed!r}")
        return found[0]


def new_key(name: str, scopes: Iterable[str]) -> tuple[str, str]:
    """A new random key, and its table for the file of keys.

    Raises ``ConfigError`` for a name or a scope that the file cannot hold.
    """
    key = secrets.token_urlsafe(_KEY_BYTES)
    scope_list = list(dict.fromkeys(scopes))
    try:
        _KeyTable.validate_python({name: {"sha256": _digest(key), "scopes": scope_list}})
    except ValidationError as error:
        raise ConfigError(
            f"key {name!r}, scope {', '.join(map(repr, scope_list))}: "
            f"a name may have up to 64 letters, digits, - and _; scopes are {_SCOPES}"
        ) from error
    quoted = ", ".join(f'"{scope}"' for scope in scope_list)
    return key, f'[{name}]\nsha256 = "{_digest(key)}"\nscopes = [{quoted}]\n'


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
