"""Errors of Redis and of its client library, translated into this project's own."""

from redis import exceptions
from redis.sentinel import MasterNotFoundError

from ubert_model.errors import StoreError, StoreFullError, StoreUnavailableError
from ubert_model.states.redis_address import RedisAddress, Topology

Command = tuple[str | bytes, ...]

CLIENT_ERRORS = (exceptions.RedisError, exceptions.RedisClusterException, OSError)
"""Everything that the library raises when servers refuse or cannot be reached."""
_CREDENTIALS = (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.NoPermissionError)
_UNREACHABLE = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ClusterError,
    exceptions.AskError,
    exceptions.TryAgainError,
    exceptions.RedisClusterException,
    OSError,
)
_TOO_FEW_REPLICAS = "NOREPLICAS"
_CANNOT_SAVE = "MISCONF"


def store_error(error: Exception, address: RedisAddress, command: Command = ()) -> StoreError:
    """The error to raise for one of redis-py. It may quote the command, but never the address's credentials."""
    name = address.display_name
    if isinstance(error, _CREDENTIALS):
        return StoreError(f"{name} refuses the user of the store URL ({error}): check its credentials and permissions")
    reason = _transient_failure(error, address)
    if reason is not None:
        return StoreUnavailableError(f"{name} {reason}")
    if isinstance(error, exceptions.ReadOnlyError):
        return StoreError(f"{name} is a read-only replica: put the primary in the store URL")
    if isinstance(error, exceptions.OutOfMemoryError):
        return StoreFullError(
            f"{name} is out of memory: raise its maxmemory, drop an old namespace, or use a smaller codec"
        )
    if str(error).startswith(_CANNOT_SAVE):
        return StoreFullError(f"{name} takes no writes because it cannot save to its disk: make room there ({error})")
    what = " ".join(part.decode() if isinstance(part, bytes) else part for part in command[:2])
    return StoreError(f"{name} refused {what or 'a command'}: {error}")


def _transient_failure(error: Exception, address: RedisAddress) -> str | None:
    """Why a retry may succeed; None if it cannot."""
    if isinstance(error, MasterNotFoundError):
        # The library's own message describes every attempt to connect, at length.
        asked = "" if address.sentinel_credentials else " (if they ask for a password: add sentinel_password)"
        return f"cannot be reached: no sentinel names a primary for {address.service!r}{asked}"
    if isinstance(error, _UNREACHABLE):
        return f"cannot be reached: {error}"
    if str(error).startswith(_TOO_FEW_REPLICAS):
        return f"takes no writes while replicas are away: {error}"
    if isinstance(error, exceptions.ReadOnlyError) and address.topology is not Topology.SERVER:
        return "is failing over: a primary has become a replica"
    return None
