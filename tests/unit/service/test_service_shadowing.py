"""What a shadow bundle rates: samples of the answers, from the same reviews, as many as it can keep up with."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import Queue
from threading import Event, Thread
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

TIMEOUT_S = 60.0


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
    """The engine of a shadow bundle, and the telemetry of its samples."""

    rated: list[tuple[list[Pair], Reading]] = field(default_factory=list)
    fates: "Queue[ShadowFate]" = field(default_factory=Queue)
    may_rate: Event = field(default_factory=Event)
    away: bool = False

    def score(self, pairs: Sequence[Pair], reading: Reading) -> list[Prediction]:
        assert self.may_rate.wait(TIMEOUT_S)
        self.rated.append((list(pairs), reading))
        if self.away:
            raise StoreUnavailableError("it is away")
        return predictions(len(pairs))

    def shadow_sampled(self, *, fate: ShadowFate) -> None:
        self.fates.put(fate)

    def shadow_differed(self, *, stars: float) -> None:
        assert stars == 0.0

    @contextmanager
    def sampling(self, share: float = 1.0) -> Iterator[Shadowing]:
        """By default every request is sampled."""
        shadowing = Shadowing(share=share, telemetry=self)
        try:
            yield shadowing
        finally:
            self.may_rate.set()
            shadowing.close()

    def offer(self, to: Shadowing, count: int = 1, reading: Reading = EVERY_REVIEW) -> None:
        to.offer(cast("ServedBundle", SimpleNamespace(sampling_engine=self)), predictions(count), reading)

    def next_fate(self) -> ShadowFate:
        return self.fates.get(timeout=TIMEOUT_S)


def test_a_sample_is_a_few_pairs_of_the_request_rated_with_the_same_reading() -> None:
    shadow, reading = Shadow(), Reading(before=30, excluded=frozenset(["r"]))
    with shadow.sampling() as shadowing:
        shadow.offer(shadowing, 10 * PAIRS_A_SAMPLE, reading)
    assert shadow.rated == [([one.pair for one in predictions(PAIRS_A_SAMPLE)], reading)]


def test_a_sample_starts_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system refused it, the request that is sampled would fail."""

    def refuse(thread: Thread) -> None:
        raise RuntimeError("can't start new thread")

    shadow = Shadow()
    with shadow.sampling() as shadowing:
        monkeypatch.setattr(Thread, "start", refuse)
        shadow.offer(shadowing)
    assert len(shadow.rated) == 1


def test_a_request_with_inline_reviews_is_not_sampled() -> None:
    shadow = Shadow()
    inline = InlineReviews(user="u", entries=(), unrated=frozenset(), states={}, texts={})
    with shadow.sampling() as shadowing:
        shadow.offer(shadowing, reading=Reading(inline=inline))
    assert shadow.rated == []


def test_samples_that_a_shadow_cannot_keep_up_with_are_dropped_and_counted() -> None:
    shadow = Shadow()
    with shadow.sampling() as shadowing:
        for _ in range(20):
            shadow.offer(shadowing)
    fates = [shadow.next_fate() for _ in range(20)]
    assert fates == ["dropped"] * 12 + ["compared"] * 8


def test_a_shadow_that_keeps_up_drops_no_sample() -> None:
    shadow = Shadow()
    shadow.may_rate.set()
    with shadow.sampling() as shadowing:
        for _ in range(20):
            shadow.offer(shadowing)
            assert shadow.next_fate() == "compared"


def test_the_share_of_sampled_requests_is_exact() -> None:
    shadow = Shadow()
    shadow.may_rate.set()
    with shadow.sampling(share=3 / 8) as shadowing:
        for _ in range(80):
            shadow.offer(shadowing)
    assert shadow.fates.qsize() == 30


def test_each_outage_of_a_shadow_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    shadow = Shadow()
    shadow.may_rate.set()
    with shadow.sampling() as shadowing:
        for shadow.away in (True, True, False, True, True):
            shadow.offer(shadowing)
            assert shadow.next_fate() == ("failed" if shadow.away else "compared")
    assert len(caplog.records) == 2
