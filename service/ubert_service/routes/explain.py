"""``POST /explain``: explains one rating."""

from fastapi import APIRouter, Response

from ubert_service.http.problems import SCORING_PROBLEMS, documented
from ubert_service.reading.histories import Pair
from ubert_service.routes.dependencies import RATING_ANSWER, RatingContext
from ubert_service.routes.rating_answers import evidence_fields, prediction_fields
from ubert_service.routes.rating_route import RatingRoute
from ubert_service.schemas import ExplainAnswer, ExplainRequest

router = APIRouter(tags=["ratings"], route_class=RatingRoute)


@router.post(
    "/explain",
    summary="Explain a rating",
    response_model=ExplainAnswer,
    responses={200: RATING_ANSWER, **documented(*SCORING_PROBLEMS)},
)
async def explain(request: ExplainRequest, context: RatingContext) -> Response:
    """Rate a pair as `/predict` does, and explain the rating: its parts in stars, the effect of each review, the
    contribution of each row of their states, and the two reviews that attend most to each other.
    """
    served = context.served
    reading = await context.reading(request.user, request)
    (explanation,) = await context.explain([Pair(user=request.user, item=request.item)], reading)

    def answer() -> str:
        whole = ExplainAnswer(
            **prediction_fields(explanation.prediction, served.coverage),
            **evidence_fields(explanation),
            bundle=served.bundle_id,
            codec=served.codec.name,
        )
        return whole.model_dump_json()

    return await context.serialize(answer, predictions=1, explained=True)
