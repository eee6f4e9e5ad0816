"""What the text of a review says beyond its stars: a linear model over its words, and what such texts usually say.

Four stars under praise alone promise more for an item than four stars under a list of defects. The reader predicts a
review's rating from its text; what it reads above the usual reading of texts with that rating is the review's surplus.

Every review is read with weights that were fitted without the reviews of its item and those of other items of its
group. So how an item's reviews read depends on no rating of that item, neither on the one to predict (law 5) nor on
their own; only the few numbers of the usual reading are fitted on all. Training, precompute and service compute the
same number from item, rating and text.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ubert_model.errors import BundleError
from ubert_model.rating import Floats
from ubert_model.rating.curve import RatingCurve
from ubert_model.running.batches import batches
from ubert_model.tokenizer import TEXTS_PER_BATCH, ReviewTokenizer

PIECES_READ = 512
"""Word pieces of a text, at most, [CLS] and [SEP] included; it may be more than the encoder reads, since the end of a
review often sums it up."""
ITEM_GROUPS = 5
"""Each has weights that were fitted on the other groups' reviews."""
_BUCKET_BITS = 16
BUCKETS = 1 << _BUCKET_BITS
"""Word pieces and pairs of them share so many weights; from 2¹⁵ to 2¹⁸ the error changes by under 0.02%."""
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST_OF_PAIR = np.uint64(1_000_003)


def item_group(item: str) -> int:
    """The group of an item, from 0 to ``ITEM_GROUPS - 1``, the same on every machine."""
    return zlib.crc32(item.encode()) % ITEM_GROUPS


def word_buckets(token_ids: ArrayLike) -> NDArray[np.int64]:
    """The distinct buckets of a text's word pieces and of its pairs of neighbours, ascending.

    Shape:
        token_ids: (L,).
    """
    pieces = np.asarray(token_ids, dtype=np.uint64) + np.uint64(1)
    pairs = pieces[:-1] * _FIRST_OF_PAIR + pieces[1:]
    hashed = (np.concatenate([pieces, pairs]) * _GOLDEN) >> np.uint64(64 - _BUCKET_BITS)
    return np.unique(hashed).astype(np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class TextReader:
    """Reads ratings from texts. Thread-safe. ``usual``: what texts with a given rating usually read as, in stars.

    Shape:
        weights: (ITEM_GROUPS, BUCKETS) float32; intercepts: (ITEM_GROUPS,) float64; both in stars.
    """

    tokenizer: ReviewTokenizer
    weights: NDArray[np.float32]
    intercepts: Floats
    usual: RatingCurve

    def surplus(self, text: str, item: str, rating: float) -> float:
        """How far a text reads above what is usual for its rating, in stars; 0 for a text without words."""
        (surplus,) = self.surpluses([text], [item], [rating])
        return surplus

    def surpluses(self, texts: Sequence[str], items: Sequence[str], ratings: Sequence[float]) -> list[float]:
        """:meth:`surplus` of N reviews, each rounded to float32."""
        token_ids = chain.from_iterable(self.tokenizer.encode(batch) for batch in batches(texts, TEXTS_PER_BATCH))
        return [
            float(np.float32(self.reading(pieces, item) - self.usual(rating))) if pieces else 0.0
            for pieces, item, rating in zip(token_ids, items, ratings, strict=True)
        ]

    def reading(self, token_ids: ArrayLike, item: str) -> float:
        """The rating that a text of one or more word pieces reads as, in stars; not clipped.

        Shape:
            token_ids: (L,).
        """
        group, buckets = item_group(item), word_buckets(token_ids)
        total = self.weights[group, buckets].sum(dtype=np.float64)
        return float(self.intercepts[group] + total / np.sqrt(len(buckets)))

    def save(self, path: Path) -> None:
        """Write the weights and the curve, without the tokenizer."""
        curve = {"knots": np.array(self.usual.knots), "usual": np.array(self.usual.values)}
        save_file({"weights": self.weights, "intercepts": self.intercepts, **curve}, path)

    @classmethod
    def load(cls, path: Path, tokenizer_json: str) -> Self:
        """Inverse of :meth:`save`, with the tokenizer of the bundle. Raises ``BundleError`` for a file that is damaged
        or of another shape.
        """
        try:
            tables = load_file(path)
            weights, intercepts = tables["weights"], tables["intercepts"]
            usual = RatingCurve(knots=tuple(tables["knots"].tolist()), values=tuple(tables["usual"].tolist()))
        except (OSError, KeyError, SafetensorError, TypeError, ValueError) as error:
            raise BundleError(f"{path}: {error!r}; export the bundle again") from error
        if weights.shape != (ITEM_GROUPS, BUCKETS) or intercepts.shape != (ITEM_GROUPS,):
            raise BundleError(
                f"{path} holds weights of shape {weights.shape} and intercepts of shape {intercepts.shape}, not "
                f"{(ITEM_GROUPS, BUCKETS)} and {(ITEM_GROUPS,)}; export the bundle again"
            )
        if not (np.isfinite(weights).all() and np.isfinite(intercepts).all()):
            raise BundleError(f"{path} holds weights that are no finite numbers; export the bundle again")
        tokenizer = ReviewTokenizer(tokenizer_json, PIECES_READ)
        return cls(tokenizer=tokenizer, weights=weights, intercepts=intercepts, usual=usual)
