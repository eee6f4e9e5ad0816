"""What a shadow is asked: what was answered, as it was answered, and no more than it can keep up with."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import Queue
from threading import Event
from types import SimpleNamespace
from typing import cast

import pytest

from ubert_model.errors import StoreUnavailableError
from ubert_service.reading.histories import EVERY_REVIEW, Pair, Reading
from ubert_service.reading.inline import InlineReviews
from ubert_service.scoring.engine import Prediction
from ubert_service.serving.served import ServedBundle
from ubert_service.serving.shadowing import PAIRS_A_SAMPLE, Shadowing
from ubert_service.telemetry import ShadowFate

PATIENCE_S = 60.0


def predictions(count: int) -> list[Prediction]:
    return [
        Prediction(
            pair=Pair("u", f"i{number}"),
            rating=3.0,
            low=2.0,
            high=4.0,
            basis="mean",
            reasons=(),
            user_reviews=0,
            item_reviews=0,
            user_tokens=0,
            item_tokens=0,
            missing_states=0,
            user_known=False,
            item_known=False,
        )
        for number in range(count)
    ]


@dataclass
class Shadow:
    """Its own engine and the telemetry of its samples."""

    asked: list[tuple[list[Pair], Reading]] = field(default_factory=list)
    fates: "Queue[ShadowFate]" = field(default_factory=Queue)
    may_rate: Event = field(default_factory=Event)
    away: bool = False

    def score(self, pairs: Sequence[Pair], reading: Reading) -> list[Prediction]:
        assert self.may_rate.wait(PATIENCE_S)
        self.asked.append((list(pairs), reading))
        if self.away:
            raise StoreUnavailableError("it is away")
        return predictions(len(pairs))

    def shadow_sampled(self, *, fate: ShadowFate) -> None:
        self.fates.put(fate)

    def shadow_differed(self, *, stars: float) -> None:
        assert stars == 0.0

    @contextmanager
    def compared(self) -> Iterator[Shadowing]:
        """With all that is answered."""
        shadowing = Shadowing(share=1.0, telemetry=self)
        try:
            yield shadowing
        finally:
            self.may_rate.set()
            shadowing.close()

    def offered(self, to: Shadowing, count: int = 1, reading: Reading = EVERY_REVIEW) -> None:
        to.offer(cast("ServedBundle", SimpleNamespace(engine=self)), predictions(count), reading)

    def fate(self) -> ShadowFate:
        return self.fates.get(timeout=PATIENCE_S)


def test_a_sample_is_rated_by_the_reviews_that_the_answer_has_read_and_is_never_a_whole_ranking() -> None:
    shadow, reading = Shadow(), Reading(before=30, excluded=frozenset(["r"]))
    with shadow.compared() as shadowing:
        shadow.offered(shadowing, 10 * PAIRS_A_SAMPLE, reading)
    assert shadow.asked == [([one.pair for one in predictions(PAIRS_A_SAMPLE)], reading)]


def test_what_was_encoded_for_the_live_bundle_is_no_sample() -> None:
    shadow = Shadow()
    brought = InlineReviews(user="u", entries=(), unrated=frozenset(), states={}, texts={})
    with shadow.compared() as shadowing:
        shadow.offered(shadowing, reading=Reading(inline=brought))
    assert shadow.asked == []


def test_what_a_shadow_cannot_keep_up_with_is_dropped_and_told() -> None:
    shadow = Shadow()
    with shadow.compared() as shadowing:
        for _ in range(20):
            shadow.offered(shadowing)
    fates = [shadow.fate() for _ in range(20)]
    assert fates == ["dropped"] * 12 + ["compared"] * 8


def test_a_shadow_that_keeps_up_is_compared_for_ever() -> None:
    shadow = Shadow()
    shadow.may_rate.set()
    with shadow.compared() as shadowing:
        for _ in range(20):
            shadow.offered(shadowing)
            assert shadow.fate() == "compared"


def test_each_outage_of_a_shadow_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    shadow = Shadow()
    shadow.may_rate.set()
    with shadow.compared() as shadowing:
        for shadow.away in (True, True, False, True, True):
            shadow.offered(shadowing)
            assert shadow.fate() == ("failed" if shadow.away else "compared")
    assert len(caplog.records) == 2
