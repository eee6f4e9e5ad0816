"""``POST /rank``: candidates ordered for one user."""

from fastapi import APIRouter

from ubert_service.context import JSON_BODY, READS_STORE, Context
from ubert_service.histories import Pair
from ubert_service.problems import SCORING_PROBLEMS, documented
from ubert_service.schemas import PairPrediction, RankAnswer, RankRequest

router = APIRouter(tags=["ratings"], dependencies=[JSON_BODY, READS_STORE])


@router.post("/rank", summary="Order items for a user", responses=documented(*SCORING_PROBLEMS))
async def rank(request: RankRequest, context: Context) -> RankAnswer:
    """Predict the user's rating of each candidate and order them, best first.

    Every rating equals what `/predict` gives for the same pair.
    """
    pairs = [Pair(user=request.user, item=item) for item in dict.fromkeys(request.candidates)]
    served = context.served
    predictions = await context.predict(pairs, request.reading())
    best = sorted(predictions, key=lambda prediction: -prediction.rating)[: request.top_k]
    return RankAnswer(
        user=request.user,
        bundle=served.bundle_id,
        codec=served.codec.name,
        items=[PairPrediction.of(one, coverage=served.coverage) for one in best],
    )
