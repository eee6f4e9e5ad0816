"""What each codec costs in accuracy and saves in bytes, on states of real reviews and the pairs that read them."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from ubert_model.bundle import CODEBOOKS
from ubert_model.errors import InputError
from ubert_model.nn.review_encoder import ReviewEncoder
from ubert_model.states import Namespace, codec_names, make_codec
from ubert_model.states.product_code import Codebooks
from ubert_training.evaluation.metrics import Errors, Estimate, relative_change
from ubert_training.evaluation.read_pairs import ReadPairs
from ubert_training.finetuning.finished_run import FinishedRun
from ubert_training.reviews.table import Rows

EXACT = "fp32"
LARGEST_CHANGE = 0.001
"""Relative change of the MSE that a codec may cost: the upper end of its interval must lie below."""
TIMED_ROUNDS = 3
MOST_PAIRS = 4_000
"""Pairs measured per run: the states that they read are in memory several times over."""
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Tier:
    """One codec, over all runs of one state dimension.

    Bytes count whole stored values, header and checksum included; ratios are fp32's bytes over this codec's, for fp32
    at this dimension and at the encoder's full width. ``change``: of the MSE against fp32 states, relative. Differences
    of single ratings are in stars. Speeds are those of this process: reviews decoded per second, and pairs rated per
    second, in torch, without decoding.
    """

    codec: str
    state_dim: int
    bytes_a_token: float
    bytes_a_review: float
    ratio_same_dim: float
    ratio_full_width: float
    mse: float
    change: Estimate
    typical_difference: float
    largest_difference: float
    reviews_decoded_a_second: float
    pairs_rated_a_second: float

    @property
    def small_change(self) -> bool:
        return self.change.high < LARGEST_CHANGE


@dataclass(frozen=True, kw_only=True)
class TierReport:
    """Tiers of every dimension, on ``pairs`` pairs of the ``part`` of each of the ``runs``."""

    runs: Sequence[Path]
    part: str
    pairs: int
    reviews: int
    tokens_a_review: float
    tiers: Sequence[Tier]

    def smallest(self, state_dim: int) -> Tier:
        """The smallest tier of a dimension whose change is surely small; fp32 always qualifies."""
        fitting = [tier for tier in self.tiers if tier.state_dim == state_dim and tier.small_change]
        return min(fitting, key=lambda tier: tier.bytes_a_review)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Measured:
    """One codec on one run; ``errors``: (P,), in stars."""

    errors: Errors
    bytes: int
    decode_s: float
    rate_s: float


@dataclass(frozen=True, kw_only=True, eq=False)
class _Bench:
    """One run's pairs, and the codebooks for its states."""

    pairs: ReadPairs
    codebooks: Codebooks

    @classmethod
    def of(cls, run: FinishedRun, part: str) -> "_Bench":
        return cls(
            pairs=ReadPairs.of(run, _sample(getattr(run.split, part))),
            codebooks=Codebooks.load(run.directory / CODEBOOKS),
        )

    @property
    def encoder(self) -> ReviewEncoder:
        return self.pairs.run.model.review_encoder

    @property
    def reviews(self) -> int:
        return len(self.pairs.rows)

    @property
    def tokens(self) -> int:
        return int(self.pairs.run.tokens.lengths[self.pairs.rows].sum())

    @property
    def rows(self) -> int:
        return sum(len(matrix) for matrix in self.pairs.states)

    def measure(self, name: str) -> _Measured:
        namespace = Namespace(
            version="0" * 16,  # nothing is stored
            encoder_digest="",
            codec=name,
            state_dim=self.encoder.dim,
            max_length=self.pairs.run.files.config.max_length,
        )
        codec = make_codec(namespace, self.codebooks)
        payloads = [codec.encode(matrix) for matrix in self.pairs.states]
        (states, offsets), decode_s = _timed(lambda: codec.decode_many(payloads), rounds=TIMED_ROUNDS)
        ratings, rate_s = _timed(lambda: self.pairs.ratings(states, offsets), rounds=1)
        return _Measured(
            errors=ratings - self.pairs.truth, bytes=sum(map(len, payloads)), decode_s=decode_s, rate_s=rate_s
        )


def measure_tiers(runs: Sequence[FinishedRun], part: str, advance: Callable[[int], None]) -> TierReport:
    """Measure every codec on every run, on at most :data:`MOST_PAIRS` of its pairs; runs of one state dimension are
    pooled. ``advance`` is called after each codec and run.

    Raises ``InputError`` for a run whose pairs read no text.
    """
    benches = [_Bench.of(run, part) for run in runs]
    for bench in benches:
        if not bench.reviews:
            raise InputError(
                f"no {part} pair of {bench.pairs.run.directory} reads a review that has text, so there are no states "
                "to measure: give a run on reviews with text"
            )
    dims = sorted({bench.encoder.dim for bench in benches}, reverse=True)
    reviews = sum(bench.reviews for bench in benches)
    return TierReport(
        runs=[run.directory for run in runs],
        part=part,
        pairs=sum(len(bench.pairs.histories) for bench in benches),
        reviews=reviews,
        tokens_a_review=sum(bench.tokens for bench in benches) / max(1, reviews),
        tiers=[
            tier for dim in dims for tier in _tiers([bench for bench in benches if bench.encoder.dim == dim], advance)
        ],
    )


def _sample(pairs: Rows) -> Rows:
    """At most :data:`MOST_PAIRS` of the pairs, ascending; drawn at random, but always the same ones."""
    return np.sort(np.random.default_rng(0).permutation(pairs)[:MOST_PAIRS])


def _tiers(benches: Sequence[_Bench], advance: Callable[[int], None]) -> Iterator[Tier]:
    exact = [bench.measure(EXACT) for bench in benches]  # also warms up what is timed below
    for name in codec_names():
        measured = []
        for bench in benches:
            measured.append(bench.measure(name))
            advance(1)
        yield _tier(name, benches, measured, exact)


def _tier(name: str, benches: Sequence[_Bench], measured: Sequence[_Measured], exact: Sequence[_Measured]) -> Tier:
    encoder = benches[0].encoder
    tokens = sum(bench.tokens for bench in benches)
    reviews = sum(bench.reviews for bench in benches)
    size = sum(run.bytes for run in measured)
    exact_size = sum(run.bytes for run in exact)
    rows = sum(bench.rows for bench in benches)
    unpooled_size = exact_size + 4 * (tokens - rows) * encoder.dim  # fp32 with a row for every token
    errors = np.concatenate([run.errors for run in measured])
    exact_errors = np.concatenate([run.errors for run in exact])
    difference = errors - exact_errors
    return Tier(
        codec=name,
        state_dim=encoder.dim,
        bytes_a_token=size / tokens,
        bytes_a_review=size / reviews,
        ratio_same_dim=unpooled_size / size,
        ratio_full_width=(unpooled_size + 4 * tokens * (encoder.hidden_dim - encoder.dim)) / size,
        mse=float(np.square(errors).mean()),
        change=relative_change(errors, exact_errors),
        typical_difference=float(np.sqrt(np.square(difference).mean())),
        largest_difference=float(np.abs(difference).max()),
        reviews_decoded_a_second=reviews / sum(run.decode_s for run in measured),
        pairs_rated_a_second=len(errors) / sum(run.rate_s for run in measured),
    )


def _timed(call: Callable[[], T], *, rounds: int) -> tuple[T, float]:
    """The result, and the shortest time of ``rounds`` calls, in seconds."""
    fastest = float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        result = call()
        fastest = min(fastest, time.perf_counter() - started)
    return result, fastest
