"""What the container allows the process."""

import math
from pathlib import Path

import pytest

from ubert_service.observability.container import memory_limit_bytes


@pytest.mark.parametrize(("content", "limit"), [("2147483648\n", 2**31), ("max\n", math.inf), (None, math.inf)])
def test_the_memory_limit_is_that_of_the_container_or_infinite(
    content: str | None, limit: float, tmp_path: Path
) -> None:
    file = tmp_path / "memory.max"
    if content is not None:
        file.write_text(content)
    assert memory_limit_bytes(file) == limit
