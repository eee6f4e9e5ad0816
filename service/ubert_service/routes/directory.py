"""``GET /users`` and ``GET /items``: search by identifier prefix."""

from typing import Annotated

from fastapi import APIRouter, Query

from ubert_service.http.problems import NOT_READY, STORE_PROBLEMS, documented
from ubert_service.routes.dependencies import Context
from ubert_service.schemas import MAX_FOUND, EntityList, IdentifierPrefix

router = APIRouter(tags=["reviews"])

Prefix = Annotated[IdentifierPrefix, Query(description="The start of the identifier, ignoring case.")]
Limit = Annotated[int, Query(ge=1, le=MAX_FOUND)]


@router.get("/users", summary="Search users", responses=documented(*STORE_PROBLEMS, NOT_READY))
async def find_users(context: Context, prefix: Prefix = "", limit: Limit = 20) -> EntityList:
    """Users seen in training, by a prefix of their identifier; others, by their full identifier."""
    directory = context.served.directory
    return EntityList.of(await context.ask_store(lambda: directory.users(prefix, limit=limit)))


@router.get("/items", summary="Search items", responses=documented(*STORE_PROBLEMS, NOT_READY))
async def find_items(context: Context, prefix: Prefix = "", limit: Limit = 20) -> EntityList:
    """Items seen in training, by a prefix of their identifier; others, by their full identifier."""
    directory = context.served.directory
    return EntityList.of(await context.ask_store(lambda: directory.items(prefix, limit=limit)))
