"""The predictions of one request: a latency budget, explanations, and what is counted and sampled of them."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TypeVar, cast

import pytest
from starlette.requests import Request

from ubert_model.config import ModelConfig
from ubert_service import context as context_module
from ubert_service.context import RequestContext, ServiceContext
from ubert_service.explaining.explain import Explanation
from ubert_service.observability.tracing import Untraced
from ubert_service.reading.histories import EVERY_REVIEW, Pair, Reading, ReviewList
from ubert_service.schemas import LEAST_SCORED
from ubert_service.scoring.engine import Prediction
from ubert_service.serving.bundles import Roles
from ubert_service.work.cancellation import Cancelled, never_cancelled
from ubert_service.work.scheduler import UnbatchedCall

BUDGET_S = 3600.0
"""Longer than any machine takes for these pairs."""
T = TypeVar("T")


def predicted(pairs: Sequence[Pair]) -> list[Prediction]:
    return [cast("Prediction", SimpleNamespace(pair=pair, basis="mean", missing_states=0)) for pair in pairs]


@dataclass
class Bundle:
    """A served bundle that rates in no time, and the queue and shadow of its service. Records what each is asked."""

    slices: list[int] = field(default_factory=list)
    users: list[dict[str, ReviewList] | None] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    offered: list[list[Pair]] = field(default_factory=list)
    counted: int = 0

    def context(self, *, arrived: float = 0.0) -> RequestContext:
        config = SimpleNamespace(max_rows=10, max_reviews=2)
        bundle = SimpleNamespace(manifest=SimpleNamespace(config=cast("ModelConfig", config)))
        served = SimpleNamespace(engine=self, explainer=self, bundle=bundle)
        return RequestContext(
            service=cast(
                "ServiceContext",
                SimpleNamespace(scheduler=self, tracing=Untraced(), metrics=self, shadowing=self),
            ),
            request=Request({"type": "http", "state": {"arrived": arrived}}),
            roles=cast("Roles", SimpleNamespace(live=served, shadow=served)),
            deadline=math.inf,
        )

    def score(
        self,
        pairs: Sequence[Pair],
        reading: Reading = EVERY_REVIEW,
        cancelled: Cancelled = never_cancelled,
        users: dict[str, ReviewList] | None = None,
    ) -> list[Prediction]:
        self.slices.append(len(pairs))
        self.users.append(users)
        return predicted(pairs)

    def explain(self, pair: Pair, reading: Reading, cancelled: Cancelled) -> Explanation:
        return cast("Explanation", SimpleNamespace(prediction=predicted([pair])[0]))

    def submit(self, lane: UnbatchedCall[T], request: None, *, tokens: int, **_: object) -> "asyncio.Future[T]":
        self.tokens.append(tokens)
        submitted: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        submitted.set_result(lane.answer([request], never_cancelled)[0])
        return submitted

    def offer(self, shadow: object, predictions: Sequence[Prediction], reading: Reading) -> None:
        self.offered.append([prediction.pair for prediction in predictions])

    def predicted(self, *, basis: str, pairs: int) -> None:
        self.counted += pairs

    def states_missed(self, count: int) -> None:
        assert count == 0


def pairs_of(count: int) -> list[Pair]:
    return [Pair("u", f"i{number}") for number in range(count)]


@pytest.mark.parametrize(("waited_s", "rated"), [(0.0, 10 * LEAST_SCORED), (2 * BUDGET_S, LEAST_SCORED)])
def test_time_spent_waiting_counts_towards_the_latency_budget(waited_s: float, rated: int) -> None:
    context = Bundle().context(arrived=time.monotonic() - waited_s)
    pairs = pairs_of(10 * LEAST_SCORED)
    predictions = asyncio.run(context.predict_in_time(pairs, EVERY_REVIEW, BUDGET_S))
    assert [prediction.pair for prediction in predictions] == pairs[:rated]


def test_slices_grow_fourfold_and_then_to_what_the_measured_speed_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle()
    slices = bundle.slices
    # A second for each pair.
    monkeypatch.setattr(context_module, "time", SimpleNamespace(monotonic=lambda: float(sum(slices))))
    least, budget_s = LEAST_SCORED, 15 * LEAST_SCORED
    rated = asyncio.run(bundle.context().predict_in_time(pairs_of(2 * budget_s), EVERY_REVIEW, budget_s))
    assert len(rated) == sum(slices)
    assert slices[:4] == pytest.approx([least, 4 * least, 0.8 * 10 * least, 0.8 * 2 * least], abs=1)
    assert 0.9 * budget_s < sum(slices) <= budget_s


def test_all_slices_of_a_ranking_read_one_state_of_its_user() -> None:
    bundle = Bundle()
    context = bundle.context(arrived=time.monotonic())
    asyncio.run(context.predict_in_time(pairs_of(10 * LEAST_SCORED), EVERY_REVIEW, BUDGET_S))
    assert len(bundle.users) > 1
    assert bundle.users[0] is not None
    assert all(users is bundle.users[0] for users in bundle.users)


@pytest.mark.parametrize(
    "answer",
    [
        lambda context, pairs: context.predict_in_time(pairs, EVERY_REVIEW, BUDGET_S),
        lambda context, pairs: context.explain(pairs, EVERY_REVIEW),
    ],
    ids=["in time", "explained"],
)
def test_a_request_is_offered_to_the_shadow_once_with_all_its_predictions(
    answer: Callable[[RequestContext, list[Pair]], Awaitable[object]],
) -> None:
    bundle, pairs = Bundle(), pairs_of(10 * LEAST_SCORED)
    context = bundle.context(arrived=time.monotonic())

    async def answered() -> None:
        await answer(context, pairs)

    asyncio.run(answered())
    assert (bundle.offered, bundle.counted) == ([pairs], len(pairs))


def test_each_explained_pair_is_work_of_its_own() -> None:
    bundle = Bundle()
    asyncio.run(bundle.context().explain(pairs_of(3)))
    assert len(bundle.tokens) == 3
    alone = Bundle()
    asyncio.run(alone.context().explain(pairs_of(1)))
    assert bundle.tokens == 3 * alone.tokens


@pytest.mark.parametrize(
    ("predictions", "explained", "in_loop"), [(1, False, True), (101, False, False), (1, True, False)]
)
def test_what_is_long_to_serialize_is_left_to_a_worker(predictions: int, explained: bool, in_loop: bool) -> None:
    bundle = Bundle()
    answer = bundle.context().serialize(lambda: "{}", predictions=predictions, explained=explained)
    assert asyncio.run(answer).body == b"{}"
    assert bundle.tokens == ([] if in_loop else [0])
