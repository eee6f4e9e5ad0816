"""``GET /about``: a summary of the live model for people."""

from fastapi import APIRouter

from ubert_service.http.problems import ACCESS_PROBLEMS, BUNDLE_UNUSABLE, documented
from ubert_service.routes.dependencies import ServiceDependency
from ubert_service.schemas import About
from ubert_service.serving.accuracy import scores_of

router = APIRouter(tags=["operation"])


@router.get("/about", summary="Which model, and how accurate?", responses=documented(*ACCESS_PROBLEMS, BUNDLE_UNUSABLE))
async def about(context: ServiceDependency) -> About:
    """The bundle's rating scale and size, the kind of its state store, and its errors on the test set."""
    served = context.served
    scores = scores_of(served.metrics)
    return About.of(served.bundle.manifest, served.identities, store=context.store_kind, scores=scores)
