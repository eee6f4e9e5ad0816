"""What a write is answered with, and a question may be sent along with: up to where the answer has to have read."""

import re
from typing import NamedTuple, Self

from ubert_model.errors import InputError
from ubert_model.states import Revision

READ_VERSION_PATTERN = r"^([0-9a-f]{1,64}):([0-9]{1,20}-[0-9]{1,20})$"


class ReadVersion(NamedTuple):
    """A revision in the feed of one namespace; the feeds of two have positions that cannot be compared.

    ``namespace``: its state version.
    """

    namespace: str
    revision: Revision

    def __str__(self) -> str:
        return f"{self.namespace}:{self.revision}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Inverse of ``str``. Raises ``InputError``."""
        found = re.fullmatch(READ_VERSION_PATTERN, text)
        if found is None:
            raise InputError(f"read version {text[:100]!r} is not one that a write was answered with")
        return cls(found[1], Revision.parse(found[2]))
