"""The client whose calls block."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import httpx

from ubert_service.client import calls
from ubert_service.client.calls import Call, Received, RemovedReview, T, Write, address_of, headers_of
from ubert_service.client.conversation import Conversation, Outcome
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


class Client:
    """A service at ``base_url``. Thread-safe, but not to be used across a fork, which would share its connections;
    close it, or use it as a context manager.

    Every method raises ``ClientError``: :class:`~ubert_service.client.ProblemError` where the service has answered
    with a problem; and ``InputError`` for an identifier that is not valid Unicode. ``transport`` replaces the network
    in whole. Making one raises ``ConfigError`` for an address or a key that no request can carry.

    ``after`` is the answer to a write, whose effect the answer must show, whichever replica gives it. The other reading
    calls need none: they go to the store itself.

    Two things block beyond the deadline of the policy, and only ``AsyncClient`` can end them: the resolution of a name,
    and a broken server that sends the head of an answer byte by byte, without end.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        policy: RetryPolicy | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._policy = policy or RetryPolicy()
        self._http = httpx.Client(
            base_url=address_of(base_url, api_key), headers=headers_of(api_key), transport=transport
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections. Safe to call twice."""
        self._http.close()

    def predict(self, request: PredictRequest, *, after: Write | None = None) -> PredictAnswer:
        """Rate pairs of a user and an item."""
        return self._do(calls.predict(request, after))

    def rank(self, request: RankRequest, *, after: Write | None = None) -> RankAnswer:
        """Order items for a user."""
        return self._do(calls.rank(request, after))

    def explain(self, request: ExplainRequest, *, after: Write | None = None) -> ExplainAnswer:
        """Where the rating of one pair comes from."""
        return self._do(calls.explain(request, after))

    def write_candidate_set(self, name: str, items: Sequence[str]) -> CandidateSetAnswer:
        """Store items under a name for ``rank`` to order."""
        return self._do(calls.write_candidate_set(name, CandidateSetRequest(items=list(items))))

    def candidate_sets(self) -> list[str]:
        """The names of all stored sets, in order."""
        return self._do(calls.candidate_sets()).names

    def candidate_set(self, name: str) -> CandidateSetAnswer:
        """The items of a stored set. Raises ``NotFoundError`` if there is none."""
        return self._do(calls.candidate_set(name))

    def remove_candidate_set(self, name: str) -> None:
        """Remove a stored set. Raises ``NotFoundError`` if there is none."""
        self._do(calls.remove_candidate_set(name))

    def promote(self, bundle: str | None = None) -> PromotionAnswer:
        """Let the shadow bundle answer, or the one that is named; needs an admin key."""
        return self._do(calls.promote(bundle))

    def write_review(self, request: ReviewRequest) -> ReviewAnswer:
        """Store a review. The next prediction of the same process reads it, that of another if asked ``after`` it."""
        return self._do(calls.write_review(request))

    def remove_review(self, review_id: str, *, user: str, item: str) -> RemovedReview:
        """Remove every trace of a review. Raises ``NotFoundError`` if there is none."""
        return self._do(calls.remove_review(review_id, user=user, item=item))

    def user(self, user: str, *, limit: int | None = None, cursor: str | None = None) -> ReviewList:
        """A page of the reviews of a user, newest first; ``next`` of one page is the ``cursor`` of the next."""
        return self._do(calls.user(user, limit=limit, cursor=cursor))

    def item(self, item: str, *, limit: int | None = None, cursor: str | None = None) -> ReviewList:
        """A page of the reviews of an item, newest first; ``next`` of one page is the ``cursor`` of the next."""
        return self._do(calls.item(item, limit=limit, cursor=cursor))

    def users(self, prefix: str = "", *, limit: int | None = None) -> EntityList:
        """Users whose identifier begins with ``prefix``."""
        return self._do(calls.find_users(prefix, limit=limit))

    def items(self, prefix: str = "", *, limit: int | None = None) -> EntityList:
        """Items whose identifier begins with ``prefix``."""
        return self._do(calls.find_items(prefix, limit=limit))

    def about(self) -> About:
        """The model that answers, and its accuracy."""
        return self._do(calls.about())

    def alive(self) -> Alive:
        """Does the process run?"""
        return self._do(calls.alive())

    def ready(self) -> Ready:
        """Can it serve? Asked once; raises ``UnavailableError`` with ``reasons`` if not."""
        return self._do(calls.ready())

    def version(self) -> Version:
        """What is running."""
        return self._do(calls.version())

    def metrics(self) -> str:
        """All metrics of the process in Prometheus's text format."""
        return self._do(calls.metrics())

    def _do(self, call: Call[T]) -> T:
        conversation = Conversation(call, self._policy)
        while (pause := conversation.pause_after(self._outcome(conversation, conversation.request()))) is not None:
            time.sleep(pause)
        return conversation.result()

    def _outcome(self, conversation: Conversation[Any], request: dict[str, Any]) -> Outcome:
        try:
            with self._http.stream(**request) as response:
                content = bytearray()
                for piece in response.iter_bytes():
                    content += piece
                    conversation.go_on(len(content))
                return Received(status=response.status_code, headers=response.headers, content=bytes(content))
        except httpx.RequestError as error:
            return error
