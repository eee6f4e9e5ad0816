"""``/reviews``: writes and removes reviews."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response, status

from ubert_service.http.problems import (
    BODY_PROBLEMS,
    DEVICE_UNAVAILABLE,
    NOT_READY,
    REVIEW_NAME_TAKEN,
    STORE_WRITE_PROBLEMS,
    UNKNOWN_REVIEW,
    UNUSABLE_INPUT,
    documented,
)
from ubert_service.reviews.written_review import NewReview
from ubert_service.routes.addresses import identifier
from ubert_service.routes.dependencies import JSON_BODY, PLAIN_ADDRESS, WRITE_ANSWER, Context
from ubert_service.routes.review_answers import review_answer
from ubert_service.schemas import READ_VERSION, Identifier, ReviewAnswer, ReviewId, ReviewRequest

router = APIRouter(tags=["reviews"], dependencies=[PLAIN_ADDRESS])

_WRITING_PROBLEMS = (
    *BODY_PROBLEMS,
    *STORE_WRITE_PROBLEMS,
    UNUSABLE_INPUT,
    REVIEW_NAME_TAKEN,
    NOT_READY,
    DEVICE_UNAVAILABLE,
)


@router.post(
    "/reviews",
    summary="Store a review",
    dependencies=[JSON_BODY],
    status_code=status.HTTP_201_CREATED,
    responses={
        status.HTTP_201_CREATED: WRITE_ANSWER,
        status.HTTP_200_OK: {
            "model": ReviewAnswer,
            "description": "It existed already, or has been replaced",
            **WRITE_ANSWER,
        },
        **documented(*_WRITING_PROBLEMS),
    },
)
async def write_review(request: ReviewRequest, response: Response, context: Context) -> ReviewAnswer:
    """Encode a review and store its states; only a service that runs with `--texts` stores its text.

    Once this answers, every prediction by the same process reads the review. Other processes read it within their
    `--resident-lag`, or at once for a request with the `read_version` of this answer as `X-Read-Version`. A user may
    review an item more than once. It is safe to repeat the request.
    """
    roles = context.roles
    review = NewReview(**dict(request))
    written = await context.ask_store(lambda: roles.add(review), kind="encoding", tokens=roles.write_tokens)
    if not written.created:
        response.status_code = status.HTTP_200_OK
    answer = review_answer(written, version=roles.live.namespace.version)
    response.headers[READ_VERSION] = answer.read_version
    return answer


@router.delete(
    f"/reviews/{identifier('review_id')}",
    summary="Remove a review",
    status_code=status.HTTP_204_NO_CONTENT,
    responses={
        status.HTTP_204_NO_CONTENT: WRITE_ANSWER,
        **documented(*STORE_WRITE_PROBLEMS, NOT_READY, UNKNOWN_REVIEW),
        UNKNOWN_REVIEW.status: documented(UNKNOWN_REVIEW)[UNKNOWN_REVIEW.status] | WRITE_ANSWER,
    },
)
async def remove_review(
    review_id: Annotated[ReviewId, Path()],
    user: Annotated[Identifier, Query()],
    item: Annotated[Identifier, Query()],
    response: Response,
    context: Context,
) -> None:
    """Remove a review from the lists of its user and its item, then its states: nothing of it remains in the store.

    What training has learned from it stays in the model. It is safe to repeat the request: a 404 `unknown-review` after
    an answer that was lost has the `X-Read-Version` of a removal, too.
    """
    roles = context.roles
    removed = await context.ask_store(lambda: roles.remove(review_id, user=user, item=item))
    response.headers[READ_VERSION] = str(removed)
