"""The asynchronous client, for asyncio and trio."""

from collections.abc import Sequence
from typing import Any, Self

import anyio
import httpx

from ubert_service.client import calls
from ubert_service.client.calls import Call, Received, RemovedReview, T, Write, address_of, headers_of, shown_address
from ubert_service.client.conversation import Conversation, Outcome
from ubert_service.client.errors import ClientError
from ubert_service.client.policy import RetryPolicy
from ubert_service.schemas import (
    About,
    Alive,
    CandidateSetAnswer,
    CandidateSetRequest,
    EntityList,
    ExplainAnswer,
    ExplainRequest,
    PredictAnswer,
    PredictRequest,
    PromotionAnswer,
    RankAnswer,
    RankRequest,
    Ready,
    ReviewAnswer,
    ReviewList,
    ReviewRequest,
    Version,
)


class AsyncClient:
    """A service at ``base_url``. For one event loop; close it, or use it as an async context manager.

    Every method raises ``ClientError``, in particular :class:`~ubert_service.client.ProblemError` if the service
    answers with a problem, and ``InputError`` for an identifier that is not valid Unicode. A request that breaks its
    schema raises pydantic's ``ValidationError`` when it is made. The constructor raises ``ConfigError`` for an invalid
    address or key.

    The environment can name a proxy and certificates (``HTTP_PROXY``, ``NO_PROXY``, ``SSL_CERT_FILE``). ``transport``
    replaces all of the network, these included: ``httpx.AsyncHTTPTransport(verify=context)``, for example.

    ``after`` (read-your-writes): the answer to a write that this answer must reflect, whichever replica gives it. The
    other reading calls need no such argument: they always ask the store.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        policy: RetryPolicy | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._policy = policy or RetryPolicy()
        self._address = shown_address(base_url)
        self._http = httpx.AsyncClient(
            base_url=address_of(base_url, api_key), headers=headers_of(api_key), transport=transport
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections. Safe to call twice."""
        await self._http.aclose()

    async def predict(self, request: PredictRequest, *, after: Write | None = None) -> PredictAnswer:
        """Rate pairs of a user and an item."""
        return await self._do(calls.predict(request, after))

    async def rank(self, request: RankRequest, *, after: Write | None = None) -> RankAnswer:
        """Order items for a user."""
        return await self._do(calls.rank(request, after))

    async def explain(self, request: ExplainRequest, *, after: Write | None = None) -> ExplainAnswer:
        """Explain the rating of one pair."""
        return await self._do(calls.explain(request, after))

    async def write_candidate_set(self, name: str, items: Sequence[str]) -> CandidateSetAnswer:
        """Store items under a name, for ``rank``. Raises pydantic's ``ValidationError`` for too few or too many."""
        return await self._do(calls.write_candidate_set(name, CandidateSetRequest(items=list(items))))

    async def candidate_sets(self) -> list[str]:
        """The names of all stored sets, in order."""
        return (await self._do(calls.candidate_sets())).names

    async def candidate_set(self, name: str) -> CandidateSetAnswer:
        """The items of a stored set. Raises ``NotFoundError`` if there is none."""
        return await self._do(calls.candidate_set(name))

    async def remove_candidate_set(self, name: str) -> None:
        """Remove a stored set. Raises ``NotFoundError`` if there is none."""
        await self._do(calls.remove_candidate_set(name))

    async def promote(self, bundle: str | None = None) -> PromotionAnswer:
        """Make the shadow bundle live, or the one named; needs an admin key."""
        return await self._do(calls.promote(bundle))

    async def write_review(self, request: ReviewRequest) -> ReviewAnswer:
        """Store a review. The same process reads it at once; for another one, pass this answer as ``after``."""
        return await self._do(calls.write_review(request))

    async def remove_review(self, review_id: str, *, user: str, item: str) -> RemovedReview:
        """Remove every trace of a review. Raises ``NotFoundError`` if there is none."""
        return await self._do(calls.remove_review(review_id, user=user, item=item))

    async def user(self, user: str, *, limit: int | None = None, cursor: str | None = None) -> ReviewList:
        """A page of the reviews of a user, newest first; its ``next`` is the ``cursor`` of the next page."""
        return await self._do(calls.user(user, limit=limit, cursor=cursor))

    async def item(self, item: str, *, limit: int | None = None, cursor: str | None = None) -> ReviewList:
        """A page of the reviews of an item, newest first; its ``next`` is the ``cursor`` of the next page."""
        return await self._do(calls.item(item, limit=limit, cursor=cursor))

    async def users(self, prefix: str = "", *, limit: int | None = None, cursor: str | None = None) -> EntityList:
        """A page of users by the beginning of their identifier; its ``next`` is the ``cursor`` of the next page."""
        return await self._do(calls.find_users(prefix, limit=limit, cursor=cursor))

    async def items(self, prefix: str = "", *, limit: int | None = None, cursor: str | None = None) -> EntityList:
        """A page of items by the beginning of their identifier; its ``next`` is the ``cursor`` of the next page."""
        return await self._do(calls.find_items(prefix, limit=limit, cursor=cursor))

    async def about(self) -> About:
        """The live model and its accuracy."""
        return await self._do(calls.about())

    async def alive(self) -> Alive:
        """Does the process run?"""
        return await self._do(calls.alive())

    async def ready(self) -> Ready:
        """Can it serve? Never retried; raises ``UnavailableError`` with ``reasons`` if not."""
        return await self._do(calls.ready())

    async def version(self) -> Version:
        """What is running."""
        return await self._do(calls.version())

    async def metrics(self) -> str:
        """All metrics of the process in Prometheus's text format."""
        return await self._do(calls.metrics())

    async def _do(self, call: Call[T]) -> T:
        conversation = Conversation(call, self._policy, self._address)
        while (pause := conversation.pause_after(await self._outcome(conversation))) is not None:
            await anyio.sleep(pause)
        return conversation.result()

    async def _outcome(self, conversation: Conversation[Any]) -> Outcome:
        request = conversation.request()
        if self._http.is_closed:
            raise ClientError("the client is closed; make another")
        try:
            with anyio.fail_after(request["timeout"]):
                async with self._http.stream(**request) as response:
                    content = bytearray()
                    async for piece in response.aiter_bytes():
                        content += piece
                        conversation.check_progress(len(content))
                    return Received(status=response.status_code, headers=response.headers, content=bytes(content))
        except TimeoutError:
            raise conversation.too_late() from None
        except httpx.RequestError as error:
            return error
