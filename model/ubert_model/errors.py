"""The exception tree. A message names the offending value and the remedy; the edges (CLI, HTTP) print it as it is."""


class UbertError(Exception):
    """Root of every error that this project raises on purpose."""


class ConfigError(UbertError, ValueError):
    """A setting is missing, malformed or contradicts another."""


class InputError(UbertError):
    """What the caller gave (a file, a row, an identifier) cannot be used."""


class ReviewFileError(InputError):
    """A review file cannot be read, or holds more bad lines than allowed."""


class BundleError(UbertError):
    """A bundle is missing, incomplete, corrupt or of an unknown format version."""


class StateError(UbertError):
    """Stored encoder states cannot be used."""


class CorruptStateError(StateError):
    """Bytes are not a state of this format: bad magic, length or checksum."""


class ForeignStateError(StateError):
    """Well-formed bytes that belong to another state version (law 6: refused, never mixed)."""


class StoreError(UbertError):
    """The state store refused an operation."""


class StoreFullError(StoreError):
    """The state store has no memory left for a write; reads and removals go on."""


class StoreUnavailableError(StoreError):
    """The state store cannot be reached now; the same call may succeed later."""


class UnconfirmedWriteError(StoreUnavailableError):
    """A write was done, and fewer replicas than asked for confirmed it: a failover may lose it. Repeat it."""


class DeviceUnavailableError(UbertError):
    """A device (a GPU) was asked for and this process has none."""


class BaselineError(UbertError):
    """A model to compare with cannot be had: its library is missing, or fails."""


class ClusterError(UbertError):
    """A cluster of workers cannot be reached, or has given up on a share of the work."""


def refused_by_system(error: OSError) -> str:
    """What the system refuses for a path of the caller's, as one line: no such folder, no room, no permission."""
    path = error.filename2 or error.filename
    if not path:
        return str(error)
    if isinstance(error, FileExistsError):
        return f"{path} is a file, and a directory is to be written: give another path"
    return f"{path}: {error.strerror}"
