"""Stored review texts: kept only with ``--texts``, used for explanations, never for ratings."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from ubert_model.states import StateCodec, StateStore
from ubert_model.tokenizer import ReviewTokenizer

Span = tuple[int, int]
NO_WORDS: Span = (0, 0)
"""The span of a special token."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadText:
    """The part of a review that the encoder reads. ``spans``: start and end of the words of each row of its states, in
    code points; ``NO_WORDS`` for a special token.
    """

    text: str = field(repr=False)
    spans: Sequence[Span]


class ReviewTexts:
    """Writes and reads the texts of one namespace. Thread-safe.

    ``keeps`` False: it neither writes nor reads any, whatever the store holds.
    """

    def __init__(
        self, *, store: StateStore, codec: StateCodec, tokenizer: ReviewTokenizer, tokens_a_row: int, keeps: bool
    ) -> None:
        self._store = store
        self._version = codec.namespace.version
        self._pooled = codec.pooled
        self._tokenizer = tokenizer
        self._tokens_a_row = tokens_a_row
        self.keeps = keeps
        self._warned = False

    def to_keep(self, review_id: str, text: str) -> list[tuple[str, str]]:
        """What the store is to keep of a text, as pairs of id and text: the part that the encoder reads."""
        if self.keeps and (part := self._tokenizer.read_part(text)):
            return [(review_id, part)]
        return []

    def read(self, review_ids: Sequence[str]) -> dict[str, ReadText]:
        """The stored texts, by review. Raises ``StoreError`` and ``CorruptStateError``."""
        if not self.keeps or not review_ids:
            return {}
        texts = zip(review_ids, self._store.texts(self._version, review_ids), strict=True)
        read = {review_id: self.as_read(text) for review_id, text in texts if text is not None}
        if not (read or self._warned):
            self._warned = True
            _log.warning(
                "no text is stored of the reviews that an explanation shows: `ubert precompute` needs --texts, too"
            )
        return read

    def as_read(self, text: str) -> ReadText:
        """The part of a text that the encoder reads, with its spans."""
        part = self._tokenizer.read_part(text)
        spans = self._tokenizer.character_spans(part) if part else []
        # As for the states: the model pools tokens into rows, the codec pools the model's rows.
        return ReadText(text=part, spans=_by_row(_by_row(spans, self._tokens_a_row), self._pooled))


def _by_row(spans: Sequence[Span], pooled: int) -> list[Span]:
    """The span of each row: [CLS] has its own row, ``pooled`` other tokens share one."""
    if not spans:
        return []
    rows = [spans[:1], *(spans[start : start + pooled] for start in range(1, len(spans), pooled))]
    return [_joined([span for span in row if span != NO_WORDS]) for row in rows]


def _joined(spans: Sequence[Span]) -> Span:
    return (spans[0][0], spans[-1][1]) if spans else NO_WORDS
