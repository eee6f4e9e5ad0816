"""Settings of the service under test."""

from typing import Any

from ubert_model.bundle import Bundle
from ubert_service.settings import Settings


def settings_for(bundle: Bundle, **options: Any) -> Settings:
    """One thread on the CPU, exact states, and no bound on queueing, which on a busy machine would refuse requests.

    The store's URL is a dummy: ``create_app`` and ``ServedBundle`` take the store itself.
    """
    values = {"bundle": bundle.path, "codec": "fp32", "store": "lmdb:unused", "device": "cpu", "threads": 1}
    return Settings.of(**{**values, "queue_wait_ms": 0, **options})
