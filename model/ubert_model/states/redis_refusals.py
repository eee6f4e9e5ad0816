"""What a server or the client library says went wrong, as this project's own errors."""

from redis import exceptions as refusals
from redis.sentinel import MasterNotFoundError

from ubert_model.errors import StoreError, StoreFullError, StoreUnavailableError
from ubert_model.states.redis_address import Arrangement, RedisAddress

Command = tuple[str | bytes, ...]

EVERY_FAILURE = (refusals.RedisError, refusals.RedisClusterException, OSError)
"""All that the library raises when servers refuse or cannot be reached."""
_CREDENTIALS = (refusals.AuthenticationError, refusals.AuthorizationError, refusals.NoPermissionError)
_UNREACHABLE = (
    refusals.ConnectionError,
    refusals.TimeoutError,
    refusals.ClusterError,
    refusals.AskError,
    refusals.TryAgainError,
    refusals.RedisClusterException,
    OSError,
)
_TOO_FEW_REPLICAS = "NOREPLICAS"
_CANNOT_SAVE = "MISCONF"


def store_error(error: Exception, address: RedisAddress, command: Command = ()) -> StoreError:
    """The error to raise from one of redis-py, which may quote the command; never the address's credentials."""
    place = address.place
    if isinstance(error, _CREDENTIALS):
        return StoreError(f"{place} refuses the credentials ({error}): check those in the store URL")
    passing = _what_may_pass(error, address)
    if passing is not None:
        return StoreUnavailableError(f"{place} {passing}")
    if isinstance(error, refusals.ReadOnlyError):
        return StoreError(f"{place} is a read-only replica: put the primary in the store URL")
    if isinstance(error, refusals.OutOfMemoryError):
        return StoreFullError(
            f"{place} is out of memory: raise its maxmemory, drop an old namespace, or use a smaller codec"
        )
    if str(error).startswith(_CANNOT_SAVE):
        return StoreFullError(f"{place} takes no writes, since it cannot save to its disk: make room there ({error})")
    what = " ".join(part.decode() if isinstance(part, bytes) else part for part in command[:2])
    return StoreError(f"{place} refused {what or 'a command'}: {error}")


def _what_may_pass(error: Exception, address: RedisAddress) -> str | None:
    if isinstance(error, MasterNotFoundError):
        # The library's own message is a page of how it tried to connect.
        asked = "" if address.sentinel_credentials else " (if they ask for a password: add sentinel_password)"
        return f"cannot be reached: no sentinel names a primary for {address.service!r}{asked}"
    if isinstance(error, _UNREACHABLE):
        return f"cannot be reached: {error}"
    if str(error).startswith(_TOO_FEW_REPLICAS):
        return f"takes no writes while replicas are away: {error}"
    if isinstance(error, refusals.ReadOnlyError) and address.arrangement is not Arrangement.SERVER:
        return "is failing over: a primary has become a replica"
    return None
