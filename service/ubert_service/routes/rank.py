"""``POST /rank``: candidates ordered for one user."""

from fastapi import APIRouter

from ubert_service.problems import SCORING_PROBLEMS, UNKNOWN_CANDIDATE_SET, documented
from ubert_service.reading.histories import Pair, Reading
from ubert_service.routes.dependencies import RatingContext
from ubert_service.schemas import PairPrediction, RankAnswer, RankRequest

router = APIRouter(tags=["ratings"])


@router.post("/rank", summary="Order items for a user", responses=documented(*SCORING_PROBLEMS, UNKNOWN_CANDIDATE_SET))
async def rank(request: RankRequest, context: RatingContext) -> RankAnswer:
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
    lowest = request.min_rating
    wanted = [one for one in predictions if lowest is None or one.rating >= lowest]
    best = sorted(wanted, key=lambda prediction: -prediction.rating)[: request.top_k]
    return RankAnswer(
        user=request.user,
        bundle=served.bundle_id,
        codec=served.codec.name,
        candidates=len(pairs),
        scored=len(predictions),
        items=[PairPrediction.of(one, coverage=served.coverage) for one in best],
    )


async def _candidates(request: RankRequest, reading: Reading, context: RatingContext) -> list[str]:
    """The distinct items to rate, in order."""
    served = context.served
    items = request.candidates
    if items is None:
        name = request.candidate_set
        assert name is not None  # the schema asks for one of the two
        items = await context.ask_store(lambda: served.candidate_sets.read(name))
    distinct = dict.fromkeys(items)
    if not request.exclude_rated:
        return list(distinct)
    rated = await context.work(lambda: served.engine.reviewed_items(request.user, reading))
    return [item for item in distinct if item not in rated]
