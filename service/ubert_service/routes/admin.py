"""``/admin``: for operators only."""

import asyncio
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request

from ubert_service.errors import ForbiddenError
from ubert_service.http.problems import (
    ACCESS_PROBLEMS,
    INTERNAL,
    INVALID_REQUEST,
    NO_SHADOW,
    NOT_READY,
    NOT_THE_SHADOW,
    documented,
)
from ubert_service.routes.dependencies import PLAIN_ADDRESS, ServiceDependency
from ubert_service.schemas import PromotionAnswer

_LONGEST_ID = 128

router = APIRouter(prefix="/admin", tags=["operation"], dependencies=[PLAIN_ADDRESS])


@router.post(
    "/promote",
    summary="Let the shadow bundle answer",
    responses=documented(*ACCESS_PROBLEMS, INVALID_REQUEST, NO_SHADOW, NOT_THE_SHADOW, NOT_READY, INTERNAL),
)
async def promote(
    request: Request,
    context: ServiceDependency,
    bundle: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=_LONGEST_ID,
            description="The bundle to make live; if it already is, nothing changes. Unset: the shadow.",
        ),
    ] = None,
) -> PromotionAnswer:
    """Swap the live bundle and its shadow for every request from now on; a request that is being answered keeps the
    bundle it began with. Needs an API key with the scope `admin`, even if the service requires no keys otherwise.
    """
    if getattr(request.state, "caller", None) is None:
        raise ForbiddenError(
            "the service runs without API keys; start it with --api-keys, or send SIGHUP to one with --shadow-bundle"
        )
    swap = partial(context.bundles.promote, bundle)
    roles = await asyncio.get_running_loop().run_in_executor(context.checking, swap)
    return PromotionAnswer(bundle=roles.live.bundle_id, shadow=roles.shadow.bundle_id if roles.shadow else None)
