"""Read-your-writes: a write answers with a token, and a read that sends it sees at least that write."""

import re
from typing import NamedTuple, Self

from ubert_model.errors import InputError
from ubert_model.states import Revision

READ_VERSION_PATTERN = r"^([0-9a-f]{1,64}):([0-9]{1,20}-[0-9]{1,20})$"


class ReadVersion(NamedTuple):
    """A revision in the change feed of one namespace. Revisions of different namespaces cannot be compared.

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
            raise InputError(f"read version {text[:100]!r} is invalid: send the X-Read-Version of a write's answer")
        return cls(found[1], Revision.parse(found[2]))
