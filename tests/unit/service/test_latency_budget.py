"""A ranking's latency budget: it starts when the request arrives, not when its work does."""

import asyncio
import math
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import pytest
from starlette.requests import Request

from ubert_service import context as context_module
from ubert_service.context import RequestContext, ServiceContext
from ubert_service.reading.histories import EVERY_REVIEW, Pair, Reading
from ubert_service.schemas import LEAST_SCORED
from ubert_service.scoring.engine import Prediction
from ubert_service.serving.bundles import Roles

BUDGET_S = 3600.0
"""Longer than any machine takes for these pairs."""


class InstantContext(RequestContext):
    """Rates in no time."""

    async def predict(self, pairs: Sequence[Pair], reading: Reading = EVERY_REVIEW) -> list[Prediction]:
        return [cast("Prediction", pair) for pair in pairs]


@pytest.mark.parametrize(("waited_s", "rated"), [(0.0, 10 * LEAST_SCORED), (2 * BUDGET_S, LEAST_SCORED)])
def test_time_spent_waiting_counts_towards_the_latency_budget(waited_s: float, rated: int) -> None:
    request = Request({"type": "http", "state": {"arrived": time.monotonic() - waited_s}})
    context = InstantContext(
        service=cast("ServiceContext", None), request=request, roles=cast("Roles", None), deadline=math.inf
    )
    pairs = [Pair("u", f"i{number}") for number in range(10 * LEAST_SCORED)]
    predictions = asyncio.run(context.predict_in_time(pairs, EVERY_REVIEW, BUDGET_S))
    assert predictions == asyncio.run(context.predict(pairs[:rated]))


def test_slices_grow_fourfold_and_then_to_what_the_measured_speed_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    slices: list[int] = []

    class SlowContext(RequestContext):
        """Takes a second for each pair."""

        async def predict(self, pairs: Sequence[Pair], reading: Reading = EVERY_REVIEW) -> list[Prediction]:
            slices.append(len(pairs))
            return [cast("Prediction", pair) for pair in pairs]

    monkeypatch.setattr(context_module, "time", SimpleNamespace(monotonic=lambda: float(sum(slices))))
    request = Request({"type": "http", "state": {"arrived": 0.0}})
    context = SlowContext(
        service=cast("ServiceContext", None), request=request, roles=cast("Roles", None), deadline=math.inf
    )
    least, budget_s = LEAST_SCORED, 15 * LEAST_SCORED
    pairs = [Pair("u", f"i{number}") for number in range(2 * budget_s)]
    assert len(asyncio.run(context.predict_in_time(pairs, EVERY_REVIEW, budget_s))) == sum(slices)
    assert slices[:4] == pytest.approx([least, 4 * least, 0.8 * 10 * least, 0.8 * 2 * least], abs=1)
    assert 0.9 * budget_s < sum(slices) <= budget_s
