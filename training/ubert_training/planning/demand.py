"""The demand to plan for: how much is served, how fast, and with which settings."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from math import inf

from ubert_model.rows import pooled_rows
from ubert_model.states.codec import DEFAULT_CODEC, stored_bytes, stored_rows
from ubert_model.validation import require

SHARES = ("resident", "hits", "utilization")
"""Fields of a demand that lie between 0 and 1; all other numbers are above 0."""


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What to serve, and with which settings.

    ``tokens`` is the mean length of a review after truncation, of which ``tokens_a_row`` share a row of states;
    ``max_reviews`` and ``max_rows`` bound the reviews and the rows of a side of a pair. ``candidates`` is the number of
    pairs per request; ``resident`` the share of all reviews that a replica keeps decoded, ``hits`` the share of the
    reviews read that are found there; ``utilization`` the highest mean load of the cores, from 0 to 1.
    """

    users: int
    items: int
    reviews: int
    tokens: int = 64
    tokens_a_row: int = 16
    requests_per_s: float = 100.0
    candidates: int = 100
    latency_ms: float = 100.0
    codec: str = DEFAULT_CODEC
    state_dim: int = 128
    max_reviews: int = 40
    max_rows: int = 256
    resident: float = 0.01
    hits: float = 0.8
    id_embeddings: bool = True
    replica_cores: int = 4
    replica_bytes: float = 16e9
    redis_bytes: float = 64e9
    redis_copies: int = 2
    encoding_cores: int = 64
    training_bytes: float = 256e9
    utilization: float = 0.6

    def __post_init__(self) -> None:
        require_numbers(asdict(self))
        require(self.utilization > 0, "utilization", self.utilization, "use a share above 0")

    @property
    def listed_rows(self) -> int:
        """Rows of states of an average review, as counted against ``max_rows``."""
        return pooled_rows(self.tokens, self.tokens_a_row)

    @property
    def rows(self) -> int:
        """Rows of states of an average review after the codec's pooling."""
        return stored_rows(self.codec, self.listed_rows)

    @property
    def state_bytes(self) -> int:
        """Bytes of an average review's state in the store."""
        return stored_bytes(self.codec, self.listed_rows, self.state_dim)


def require_numbers(values: Mapping[str, object], display_name: Callable[[str], str] = str) -> None:
    """Raise ``ConfigError`` for a number out of range; ``display_name`` turns a field's name into the one shown."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if name in SHARES:
            require(0 <= value <= 1, display_name(name), value, "use a share from 0 to 1")
        else:
            require(0 < value < inf, display_name(name), value, "use a number above 0")
