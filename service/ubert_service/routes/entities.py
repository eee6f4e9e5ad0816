"""``/users`` and ``/items``: search by identifier prefix, and the reviews of one of them."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from ubert_service.http.problems import NOT_READY, STORE_PROBLEMS, UNKNOWN_ITEM, UNKNOWN_USER, documented
from ubert_service.reviews.listing import CURSOR_PATTERN
from ubert_service.routes.addresses import identifier
from ubert_service.routes.dependencies import PLAIN_ADDRESS, Context
from ubert_service.routes.review_answers import entity_list, review_list
from ubert_service.schemas import MAX_FOUND, MAX_LISTED, EntityList, Identifier, IdentifierPrefix, ReviewList

router = APIRouter(tags=["reviews"], dependencies=[PLAIN_ADDRESS])

Prefix = Annotated[IdentifierPrefix, Query(description="The start of the identifier, ignoring case.")]
Found = Annotated[int, Query(ge=1, le=MAX_FOUND, description="Users or items per page.")]
After = Annotated[Identifier | None, Query(description="The `next` of the previous page.")]
Limit = Annotated[int, Query(ge=1, le=MAX_LISTED, description="Reviews per page.")]
Cursor = Annotated[str | None, Query(pattern=CURSOR_PATTERN, description="The `next` of the previous page.")]


@router.get("/users", summary="Search users", responses=documented(*STORE_PROBLEMS, NOT_READY))
async def find_users(context: Context, prefix: Prefix = "", limit: Found = 20, cursor: After = None) -> EntityList:
    """Users seen in training, by a prefix of their identifier; others, by their full identifier."""
    directory = context.served.directory
    return entity_list(await context.ask_store(lambda: directory.users(prefix, limit=limit, after=cursor)))


@router.get("/items", summary="Search items", responses=documented(*STORE_PROBLEMS, NOT_READY))
async def find_items(context: Context, prefix: Prefix = "", limit: Found = 20, cursor: After = None) -> EntityList:
    """Items seen in training, by a prefix of their identifier; others, by their full identifier."""
    directory = context.served.directory
    return entity_list(await context.ask_store(lambda: directory.items(prefix, limit=limit, after=cursor)))


@router.get(
    f"/users/{identifier('user')}",
    summary="The reviews of a user",
    responses=documented(*STORE_PROBLEMS, NOT_READY, UNKNOWN_USER),
)
async def read_user(
    user: Annotated[Identifier, Path()], context: Context, limit: Limit = 100, cursor: Cursor = None
) -> ReviewList:
    """A user's reviews, newest first, and whether training has seen the user."""
    served = context.served
    page = await context.ask_store(lambda: served.listing.of_user(user, limit=limit, cursor=cursor))
    return review_list(user, page, version=served.namespace.version)


@router.get(
    f"/items/{identifier('item')}",
    summary="The reviews of an item",
    responses=documented(*STORE_PROBLEMS, NOT_READY, UNKNOWN_ITEM),
)
async def read_item(
    item: Annotated[Identifier, Path()], context: Context, limit: Limit = 100, cursor: Cursor = None
) -> ReviewList:
    """An item's reviews, newest first, and whether training has seen the item."""
    served = context.served
    page = await context.ask_store(lambda: served.listing.of_item(item, limit=limit, cursor=cursor))
    return review_list(item, page, version=served.namespace.version)
