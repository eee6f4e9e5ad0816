"""The exception tree. A message names the offending value and the remedy; CLI and HTTP show it as it is."""


class UbertError(Exception):
    """Base of every error that this project raises deliberately."""


class ConfigError(UbertError, ValueError):
    """A setting is missing, malformed or contradicts another."""


class InputError(UbertError):
    """The caller's input (a file, a row, an identifier) cannot be used."""


class BundleError(UbertError):
    """A bundle is missing, incomplete, corrupt or of an unknown format version."""


class ReviewNameTakenError(InputError):
    """The id of a new review already names a review of another user or item."""


class StateError(UbertError):
    """Stored encoder states cannot be used."""


class CorruptStateError(StateError):
    """These bytes are not a state of this format: wrong magic, length or checksum."""


class ForeignStateError(StateError):
    """A well-formed state of another version (law 6: refused, never mixed)."""


class StoreError(UbertError):
    """The state store refused an operation."""


class StoreFullError(StoreError):
    """The state store has no room for a write; reads and deletions still work."""


class StoreUnavailableError(StoreError):
    """The state store cannot be reached for now; a retry may succeed."""


class UnconfirmedWriteError(StoreUnavailableError):
    """Fewer replicas confirmed a write than were asked for: a failover may lose it. Retry it."""


class DeviceUnavailableError(UbertError):
    """The requested device (a GPU) is not available to this process."""


class ClusterError(UbertError):
    """A cluster of workers cannot be reached, or has failed."""


def os_error_message(error: OSError) -> str:
    """One line for an ``OSError`` on a path that the caller gave: no such folder, disk full, permission denied."""
    path = error.filename2 or error.filename
    if not path:
        return str(error)
    if isinstance(error, FileExistsError):
        return f"{path} is a file, but a directory is to be written here: give another path"
    return f"{path}: {error.strerror}"
