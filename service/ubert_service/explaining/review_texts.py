"""The texts of reviews, which a store keeps only where the operator says so: for explanations, never for ratings."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ubert_model.states import StateCodec, StateStore
from ubert_model.tokenizer import ReviewTokenizer

Span = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadText:
    """A review as far as the encoder reads it. ``spans``: where the words of each row of its states stand, in code
    points; (0, 0) for a special token.
    """

    text: str = field(repr=False)
    spans: Sequence[Span]


class ReviewTexts:
    """Keeps and reads the texts of one namespace. Thread-safe.

    ``keeps`` False: it neither writes nor reads any, whatever the store may hold.
    """

    def __init__(
        self, *, store: StateStore, codec: StateCodec, tokenizer: ReviewTokenizer, tokens_a_row: int, keeps: bool
    ) -> None:
        self._store = store
        self._version = codec.namespace.version
        self._pooled = codec.pooled
        self._tokenizer = tokenizer
        self._tokens_a_row = tokens_a_row
        self._keeps = keeps

    @property
    def in_store(self) -> bool:
        """Has the store to be asked for them?"""
        return self._keeps

    def to_keep(self, review_id: str, text: str) -> list[tuple[str, str]]:
        """What the store has to keep of a text: as much as the encoder reads."""
        if self._keeps and (part := self._tokenizer.read_part(text)):
            return [(review_id, part)]
        return []

    def read(self, review_ids: Sequence[str]) -> dict[str, ReadText]:
        """The texts that are kept, by review. Raises ``StoreError`` and ``CorruptStateError``."""
        if not self._keeps or not review_ids:
            return {}
        texts = zip(review_ids, self._store.texts(self._version, review_ids), strict=True)
        return {review_id: self.spread(text) for review_id, text in texts if text is not None}

    def spread(self, text: str) -> ReadText:
        """A text as far as it is read, with its spans."""
        part = self._tokenizer.read_part(text)
        spans = self._tokenizer.character_spans(part) if part else []
        # As the states come about: the model pools tokens, the codec pools the model's rows.
        return ReadText(text=part, spans=_by_row(_by_row(spans, self._tokens_a_row), self._pooled))


def _by_row(spans: Sequence[Span], pooled: int) -> list[Span]:
    """Where each row's tokens stand: [CLS] has a row of its own, of the others ``pooled`` share one."""
    if not spans:
        return []
    rows = [spans[:1], *(spans[start : start + pooled] for start in range(1, len(spans), pooled))]
    return [_joined([span for span in row if span != (0, 0)]) for row in rows]


def _joined(spans: Sequence[Span]) -> Span:
    return (spans[0][0], spans[-1][1]) if spans else (0, 0)
