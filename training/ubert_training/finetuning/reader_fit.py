"""Fitting the text reader on the training reviews, and what it reads in them."""

from pathlib import Path

import numpy as np
import scipy.sparse as sp
from scipy.optimize import lsq_linear
from sklearn.linear_model import Ridge

from ubert_model.bundle import TEXT_READER
from ubert_model.config import RatingScale
from ubert_model.rating import Floats
from ubert_model.rating.curve import RatingCurve
from ubert_model.rating.text_reader import BUCKETS, ITEM_GROUPS, PIECES_READ, TextReader, item_group, word_buckets
from ubert_model.tokenizer import ReviewTokenizer
from ubert_training.finetuning.curve_segments import SEGMENTS, curve_segments
from ubert_training.reviews.table import ReviewTable, Rows
from ubert_training.running.stage import refusing_damage
from ubert_training.states.tokens import TokenizedReviews

TEXTS_READ = 100_000
"""Texts to fit on, at most. A distinct word or pair of a text takes some 42 bytes: 0.8 GB at 100 pieces a text."""
RIDGE = 2.0
"""Strength of the ridge; from 1 to 4 the rating error changes by under 0.02%."""


def fit_text_reader(table: ReviewTable, rows: Rows, tokenizer_json: str) -> TextReader:
    """A ridge from the words of each text to its rating, for each group of items on the texts of the other groups.

    Shape:
        rows, of the training reviews: (R,).
    """
    if len(rows) > TEXTS_READ:
        rows = rows[np.linspace(0, len(rows) - 1, TEXTS_READ).astype(np.int64)]  # of all times alike
    tokenizer = ReviewTokenizer(tokenizer_json, PIECES_READ)
    tokens = TokenizedReviews.of([table.text[row] for row in rows.tolist()], tokenizer)
    with_text = np.flatnonzero(tokens.lengths)
    groups = np.array([item_group(table.item[row]) for row in rows[with_text].tolist()], dtype=np.int64)
    ratings = table.rating[rows[with_text]].astype(np.float64)
    words = _word_matrix(tokens, with_text)
    weights = np.zeros((ITEM_GROUPS, BUCKETS), dtype=np.float32)
    intercepts = np.full(ITEM_GROUPS, ratings.mean() if len(ratings) else 0.0)
    for group in range(ITEM_GROUPS):
        others = np.flatnonzero(groups != group)
        if len(others):
            ridge = Ridge(RIDGE, solver="sparse_cg").fit(words[others], ratings[others])
            weights[group], intercepts[group] = ridge.coef_, ridge.intercept_
    readings = np.empty(len(with_text))
    for group in range(ITEM_GROUPS):
        own = np.flatnonzero(groups == group)
        readings[own] = words[own] @ weights[group].astype(np.float64) + intercepts[group]
    usual = _usual_readings(readings, ratings, table.scale)
    return TextReader(tokenizer=tokenizer, weights=weights, intercepts=intercepts, usual=usual)


def load_text_reader(run: Path, tokenizer_json: str) -> TextReader:
    """The reader that a fine-tuning run has saved. Raises ``InputError`` if its file is missing or damaged."""
    with refusing_damage(run / TEXT_READER):
        return TextReader.load(run / TEXT_READER, tokenizer_json)


def surpluses_of(reader: TextReader, table: ReviewTable, rows: Rows) -> Floats:
    """What the texts at ``rows`` say beyond their ratings, in stars; 0 for all others: (R,), by row of the table."""
    chosen = rows.tolist()
    texts, items = [table.text[row] for row in chosen], [table.item[row] for row in chosen]
    surpluses = np.zeros(len(table))
    surpluses[rows] = reader.surpluses(texts, items, table.rating[rows].tolist())
    return surpluses


def _word_matrix(tokens: TokenizedReviews, rows: Rows) -> sp.csr_matrix:
    """The buckets of each text, every row of length 1: (R, BUCKETS)."""
    buckets = [word_buckets(tokens.review(row)) for row in rows.tolist()]
    counts = np.array([len(found) for found in buckets], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)])
    columns = np.concatenate([np.zeros(0, dtype=np.int64), *buckets])
    return sp.csr_matrix((np.repeat(1.0 / np.sqrt(counts), counts), columns, starts), shape=(len(rows), BUCKETS))


def _usual_readings(readings: Floats, ratings: Floats, scale: RatingScale) -> RatingCurve:
    """The curve from ratings to readings that is nearest in squared error."""
    design = np.stack([np.ones(len(ratings)), *(segment.at(ratings) for segment in curve_segments(scale))], axis=1)
    bounds = (np.r_[-np.inf, np.zeros(SEGMENTS)], np.inf)
    fitted = lsq_linear(design, readings, bounds=bounds, method="bvls").x if len(ratings) else np.zeros(1 + SEGMENTS)
    lowest, *rises = fitted.tolist()
    rising = RatingCurve.of_rises(scale, rises)
    return RatingCurve(knots=rising.knots, values=tuple(lowest + value for value in rising.values))
