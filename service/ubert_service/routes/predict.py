"""``POST /predict``: rates given pairs."""

from fastapi import APIRouter, Response

from ubert_service.explaining.explain import Explanation
from ubert_service.http.problems import SCORING_PROBLEMS, documented
from ubert_service.reading.histories import Pair
from ubert_service.routes.dependencies import RATING_ANSWER, RatingContext
from ubert_service.routes.rating_answers import evidence_fields, prediction_fields
from ubert_service.routes.rating_route import RatingRoute
from ubert_service.schemas import PredictAnswer, PredictedPair, PredictRequest, RatingEvidence

router = APIRouter(tags=["ratings"], route_class=RatingRoute)


@router.post(
    "/predict",
    summary="Rate pairs of a user and an item",
    response_model=PredictAnswer,
    responses={200: RATING_ANSWER, **documented(*SCORING_PROBLEMS)},
)
async def predict(request: PredictRequest, context: RatingContext) -> Response:
    """Predict the rating that each user would give to each item, in the order of the request.

    The review that a user has already written on an item is left out of its own prediction. `exclude_review_ids` and
    `as_of` leave out others: the answer is that of a store without them.
    """
    pairs = [Pair(user=pair.user, item=pair.item) for pair in request.pairs]
    served = context.served
    reading = await context.reading(pairs[0].user, request)
    explanations = await context.explain(pairs, reading) if request.explain else []
    rated = [] if request.explain else await context.predict(pairs, reading)

    def answer() -> str:
        predictions = [
            *(PredictedPair(**prediction_fields(each, served.coverage)) for each in rated),
            *(_explained(each, served.coverage) for each in explanations),
        ]
        whole = PredictAnswer(bundle=served.bundle_id, codec=served.codec.name, predictions=predictions)
        return whole.model_dump_json(exclude_unset=True)

    return await context.serialize(answer, predictions=len(pairs), explained=request.explain)


def _explained(explanation: Explanation, coverage: float) -> PredictedPair:
    fields = prediction_fields(explanation.prediction, coverage)
    return PredictedPair(**fields, evidence=RatingEvidence(**evidence_fields(explanation)))
