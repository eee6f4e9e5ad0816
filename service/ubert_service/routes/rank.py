"""``POST /rank``: orders candidates for one user."""

import math
from collections.abc import Sequence
from functools import partial

from fastapi import APIRouter, Response

from ubert_service.http.problems import SCORING_PROBLEMS, UNKNOWN_CANDIDATE_SET, documented
from ubert_service.reading.histories import Pair, Reading
from ubert_service.routes.dependencies import RATING_ANSWER, RatingContext
from ubert_service.routes.rating_answers import prediction_fields
from ubert_service.routes.rating_route import RatingRoute
from ubert_service.schemas import RATING_TOLERANCE, PairPrediction, RankAnswer, RankRequest
from ubert_service.scoring.engine import Prediction
from ubert_service.serving.served import ServedBundle

router = APIRouter(tags=["ratings"], route_class=RatingRoute)


@router.post(
    "/rank",
    summary="Order items for a user",
    response_model=RankAnswer,
    responses={200: RATING_ANSWER, **documented(*SCORING_PROBLEMS, UNKNOWN_CANDIDATE_SET)},
)
async def rank(request: RankRequest, context: RatingContext) -> Response:
    """Predict the user's rating of each candidate and order them, best first.

    Every rating equals what `/predict` gives for the same pair.
    """
    served = context.served
    reading = await context.reading(request.user, request)
    pairs = [Pair(user=request.user, item=item) for item in await _candidates(request, reading, context)]
    if request.latency_budget_ms is None:
        predictions = await context.predict(pairs, reading)
    else:
        predictions = await context.predict_in_time(pairs, reading, request.latency_budget_ms / 1000)
    answer = partial(_answer, request, served, predictions, candidates=len(pairs))
    return await context.serialize(answer, predictions=len(predictions))


def _answer(request: RankRequest, served: ServedBundle, predictions: Sequence[Prediction], *, candidates: int) -> str:
    """The answer as JSON."""
    lowest = -math.inf if request.min_rating is None else request.min_rating - RATING_TOLERANCE
    eligible = [each for each in predictions if each.rating >= lowest]
    best = sorted(eligible, key=lambda prediction: -prediction.rating)[: request.top_k]
    answer = RankAnswer(
        user=request.user,
        bundle=served.bundle_id,
        codec=served.codec.name,
        candidates=candidates,
        scored=len(predictions),
        items=[PairPrediction(**prediction_fields(each, served.coverage)) for each in best],
    )
    return answer.model_dump_json()


async def _candidates(request: RankRequest, reading: Reading, context: RatingContext) -> list[str]:
    """The distinct items to rate, in order."""
    served = context.served
    items = request.candidates
    if items is None:
        name = request.candidate_set
        assert name is not None  # the schema requires one of the two
        items = await context.ask_store(lambda: served.candidate_sets.read(name))
    distinct = dict.fromkeys(items)
    if not request.exclude_rated:
        return list(distinct)
    rated = await context.work(lambda: served.engine.reviewed_items(request.user, reading))
    return [item for item in distinct if item not in rated]
