"""Review text → word piece ids, the same way offline and online."""

from collections.abc import Sequence

from tokenizers import Tokenizer

from ubert_model.errors import BundleError

TEXTS_PER_BATCH = 8192
"""Texts to encode in one call: an encoding takes many times the memory of its token ids."""


class ReviewTokenizer:
    """A BERT word piece tokenizer that truncates at ``max_length`` tokens, [CLS] and [SEP] included.

    ``serialized`` is the content of a ``tokenizer.json``. Raises ``BundleError`` if it is not one.
    """

    def __init__(self, serialized: str, max_length: int) -> None:
        try:
            self._tokenizer = Tokenizer.from_str(serialized)
        except Exception as error:  # the library raises bare Exception on malformed JSON
            raise BundleError(f"tokenizer.json: {error}; export the bundle again") from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length)
        self._tokenizer.encode_special_tokens = True  # a "[SEP]" in a review is a word like any other
        self._special_tokens = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        self.serialized = serialized
        self.max_length = max_length

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each review, unpadded. A text without words has none, and neither has one that the tokenizer
        drops altogether (accents or control characters alone).
        """
        encodings = self._tokenizer.encode_batch([text.strip() for text in texts])
        return [encoding.ids if len(encoding) > self._special_tokens else [] for encoding in encodings]

    def token_id(self, token: str) -> int:
        """Id of a special token. Raises ``BundleError`` if the vocabulary lacks it."""
        identifier = self._tokenizer.token_to_id(token)
        if identifier is None:
            raise BundleError(f"tokenizer has no {token} token; use the tokenizer of a BERT checkpoint")
        return identifier

    def character_spans(self, text: str) -> list[tuple[int, int]]:
        """The span of each token in the text, (start, stop) in characters; empty for [CLS] and [SEP]."""
        (spans,) = self.character_spans_of([text])
        return spans

    def character_spans_of(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """:meth:`character_spans` of several texts."""
        return [encoding.offsets for encoding in self._tokenizer.encode_batch(texts)]

    def read_part(self, text: str) -> str:
        """The part of a text that is encoded: stripped of white space, and truncated."""
        (part,) = self.read_parts([text])
        return part

    def read_parts(self, texts: Sequence[str]) -> list[str]:
        """:meth:`read_part` of several texts, in parallel."""
        stripped = [text.strip() for text in texts]
        ends = [max((stop for _, stop in spans), default=0) for spans in self.character_spans_of(stripped)]
        return [text[:end] for text, end in zip(stripped, ends, strict=True)]

    @property
    def vocabulary_size(self) -> int:
        """|V|, added tokens included."""
        return self._tokenizer.get_vocab_size()
