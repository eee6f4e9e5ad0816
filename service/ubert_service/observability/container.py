"""What the container that the process runs in allows it."""

import math
from pathlib import Path

_MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")


def memory_limit_bytes(path: Path = _MEMORY_LIMIT) -> float:
    """The memory limit of this container (cgroup v2); infinite if it has none, or if that cannot be read."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # "max": no limit
        return math.inf
