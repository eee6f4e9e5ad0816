"""``/candidate-sets``: items that are ranked repeatedly, stored once."""

from typing import Annotated

from fastapi import APIRouter, Path, status

from ubert_service.http.problems import (
    BODY_PROBLEMS,
    STORE_PROBLEMS,
    STORE_WRITE_PROBLEMS,
    UNKNOWN_CANDIDATE_SET,
    UNUSABLE_INPUT,
    documented,
)
from ubert_service.routes.dependencies import JSON_BODY, PLAIN_ADDRESS, Context
from ubert_service.schemas import CandidateSetAnswer, CandidateSetList, CandidateSetName, CandidateSetRequest

router = APIRouter(tags=["candidate sets"], dependencies=[PLAIN_ADDRESS])

Name = Annotated[CandidateSetName, Path()]


@router.get("/candidate-sets", summary="The names of all candidate sets", responses=documented(*STORE_PROBLEMS))
async def list_candidate_sets(context: Context) -> CandidateSetList:
    """The sets that `/rank` takes by name."""
    return CandidateSetList(names=await context.ask_store(context.served.candidate_sets.names))


@router.put(
    "/candidate-sets/{name}",
    summary="Store a candidate set",
    dependencies=[JSON_BODY],
    responses=documented(*BODY_PROBLEMS, *STORE_WRITE_PROBLEMS, UNUSABLE_INPUT),
)
async def write_candidate_set(name: Name, request: CandidateSetRequest, context: Context) -> CandidateSetAnswer:
    """Store items under a name, replacing any earlier set. All bundles of a store share its sets."""
    sets = context.served.candidate_sets
    items = await context.ask_store(lambda: sets.write(name, request.items))
    return CandidateSetAnswer(name=name, items=items)


@router.get(
    "/candidate-sets/{name}",
    summary="The items of a candidate set",
    responses=documented(*STORE_PROBLEMS, UNKNOWN_CANDIDATE_SET),
)
async def read_candidate_set(name: Name, context: Context) -> CandidateSetAnswer:
    """The items in their order."""
    sets = context.served.candidate_sets
    return CandidateSetAnswer(name=name, items=await context.ask_store(lambda: sets.read(name)))


@router.delete(
    "/candidate-sets/{name}",
    summary="Remove a candidate set",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=documented(*STORE_WRITE_PROBLEMS, UNKNOWN_CANDIDATE_SET),
)
async def remove_candidate_set(name: Name, context: Context) -> None:
    """Remove the set; its items and their reviews stay."""
    sets = context.served.candidate_sets
    await context.ask_store(lambda: sets.remove(name))
