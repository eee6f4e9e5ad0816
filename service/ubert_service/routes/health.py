"""What runs, its health and its metrics, for orchestrators and operators."""

from fastapi import APIRouter, Request, Response

from ubert_service.http.problems import (
    ACCESS_PROBLEMS,
    BUNDLE_UNUSABLE,
    NOT_READY,
    documented,
    problem_response,
)
from ubert_service.observability import metrics
from ubert_service.routes.dependencies import ServiceDependency
from ubert_service.schemas import About, Alive, ModelAccuracy, Ready, Scale, Version
from ubert_service.serving.accuracy import scores_of
from ubert_service.serving.readiness import STORE_REMEDY

router = APIRouter(tags=["operation"])


@router.get("/about", summary="Which model, and how accurate?", responses=documented(*ACCESS_PROBLEMS, BUNDLE_UNUSABLE))
async def about(context: ServiceDependency) -> About:
    """The bundle's rating scale and size, the kind of its state store, and its errors on the test set."""
    served = context.served
    manifest, identities = served.bundle.manifest, served.bundle.identities
    scale = manifest.config.scale
    models = [ModelAccuracy(model=name, **dict(scores)) for name, scores in scores_of(served.opened.evaluation).items()]
    return About(
        bundle=manifest.bundle_id,
        scale=Scale(lowest=scale.lowest, highest=scale.highest),
        users=len(identities.users),
        items=len(identities.items),
        max_reviews=manifest.config.max_reviews,
        max_tokens=manifest.config.max_rows,
        store=context.settings.store.partition(":")[0],  # the rest of the URL may hold a password
        accuracy=sorted(models, key=lambda model: model.mse.value),
    )


@router.get("/healthz", summary="Does the process run?")
async def healthz() -> Alive:
    """Always answers; if it does not, restart the process."""
    return Alive()


@router.get(
    "/readyz",
    summary="Can it serve?",
    response_model=Ready,
    response_model_exclude_none=True,
    responses=documented(NOT_READY),
)
async def readyz(request: Request, context: ServiceDependency) -> Ready | Response:
    """Ready if the device computes, the store answers, and it holds states of this bundle and codec.

    `degraded`: the store, or one server of a cluster, is away. Requests are still answered from this process's memory
    or the other servers, as far as these hold what is needed.
    """
    obstacles = await context.obstacles()
    if not obstacles:
        degradation = await context.degradation()
        if degradation is None:
            return Ready(bundle=context.served.bundle_id)
        return Ready(bundle=context.served.bundle_id, status="degraded", detail=degradation, remedy=STORE_REMEDY)
    return problem_response(NOT_READY, "; ".join(map(str, obstacles)), request.scope, reasons=obstacles)


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"content": {metrics.MEDIA_TYPE: {"schema": {"type": "string"}}}}},
)
async def read_metrics(request: Request, context: ServiceDependency) -> Response:
    """The metrics of this process. Each scrape checks readiness, which costs a round trip to the store."""
    await context.obstacles()
    served, shadow = context.bundles.roles.live, context.bundles.roles.shadow
    context.metrics.service_measured(
        version=request.app.version,
        bundle=served.bundle_id,
        shadow=shadow.bundle_id if shadow else None,
        codec=served.namespace.codec,
        waiting=context.scheduler.admission.waiting,
    )
    context.metrics.residents_measured(
        held_bytes=sum(bundle.residents.held_bytes for bundle in context.bundles.roles.loaded),
        stale_s=context.served.residents.stale_s,
    )
    return Response(context.metrics.exposition(), media_type=metrics.MEDIA_TYPE)


@router.get("/version", summary="What is running?", responses=documented(*ACCESS_PROBLEMS))
async def version(request: Request, context: ServiceDependency) -> Version:
    """The program, the bundle, the codec and the device."""
    served, shadow = context.bundles.roles.live, context.bundles.roles.shadow
    return Version(
        version=request.app.version,
        bundle=served.bundle_id,
        shadow=shadow.bundle_id if shadow else None,
        encoder=served.bundle.manifest.encoder_digest,
        codec=served.namespace.codec,
        states=served.namespace.version,
        device=served.opened.runtime.device,
    )
