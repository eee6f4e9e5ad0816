"""``/admin``: what only an operator may do."""

import anyio.to_thread
from fastapi import APIRouter, Request

from ubert_service.context import ServiceDependency
from ubert_service.errors import ForbiddenError
from ubert_service.problems import ACCESS_PROBLEMS, INTERNAL, NO_SHADOW, NOT_READY, OVERLOADED, documented
from ubert_service.schemas import PromotionAnswer

router = APIRouter(prefix="/admin", tags=["operation"])


@router.post(
    "/promote",
    summary="Let the shadow bundle answer",
    responses=documented(*ACCESS_PROBLEMS, NO_SHADOW, NOT_READY, OVERLOADED, INTERNAL),
)
async def promote(request: Request, context: ServiceDependency) -> PromotionAnswer:
    """Swap the live bundle and its shadow, at once for every request that comes after; a request that is being
    answered keeps to the bundle it began with. Needs an API key with the scope `admin`, even where no other call does.
    """
    if getattr(request.state, "caller", None) is None:
        raise ForbiddenError("the service runs without API keys; start it with --api-keys, or send it SIGHUP instead")
    roles = await anyio.to_thread.run_sync(context.bundles.promote, limiter=context.checking)
    return PromotionAnswer(bundle=roles.live.bundle_id, shadow=roles.shadow.bundle_id if roles.shadow else None)
