"""Settings of a service in a test."""

from typing import Any

from ubert_model.bundle import Bundle
from ubert_service.settings import Settings


def settings_for(bundle: Bundle, **options: Any) -> Settings:
    """One thread on the CPU, exact states, and nobody refused because a busy machine has let others wait. Loading takes
    the store as an argument, so its URL here names none.
    """
    values = {"bundle": bundle.path, "codec": "fp32", "store": "lmdb:unused", "device": "cpu", "threads": 1}
    values |= {"queue_wait_ms": 0}
    return Settings.of(**{**values, **options})
