"""The blocking client."""

import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextvars import copy_context
from threading import Thread
from typing import Any, Self

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


class Client:
    """A service at ``base_url``. Thread-safe, but do not use it across a fork, which would share its connections. Close
    it, or use it as a context manager.

    Every method raises ``ClientError``, in particular :class:`~ubert_service.client.ProblemError` if the service
    answers with a problem, and ``InputError`` for an identifier that is not valid Unicode. A request that breaks its
    schema raises pydantic's ``ValidationError`` when it is made. The constructor raises ``ConfigError`` for an invalid
    address or key.

    The environment can name a proxy and certificates (``HTTP_PROXY``, ``NO_PROXY``, ``SSL_CERT_FILE``). ``transport``
    replaces all of the network, these included: ``httpx.HTTPTransport(verify=context)``, for example.

    ``after`` (read-your-writes): the answer to a write that this answer must reflect, whichever replica gives it. The
    other reading calls need no such argument: they always ask the store.
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
        self._address = shown_address(base_url)
        self._http = httpx.Client(
            base_url=address_of(base_url, api_key), headers=headers_of(api_key), transport=transport
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
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
        """Explain the rating of one pair."""
        return self._do(calls.explain(request, after))

    def write_candidate_set(self, name: str, items: Sequence[str]) -> CandidateSetAnswer:
        """Store items under a name, for ``rank``. Raises pydantic's ``ValidationError`` for too few or too many."""
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
        """Make the shadow bundle live, or the one named; needs an admin key."""
        return self._do(calls.promote(bundle))

    def write_review(self, request: ReviewRequest) -> ReviewAnswer:
        """Store a review. The same process reads it at once; for another one, pass this answer as ``after``."""
        return self._do(calls.write_review(request))

    def remove_review(self, review_id: str, *, user: str, item: str) -> RemovedReview:
        """Remove every trace of a review. Raises ``NotFoundError`` if there is none."""
        return self._do(calls.remove_review(review_id, user=user, item=item))

    def user(self, user: str, *, limit: int | None = None, cursor: str | None = None) -> ReviewList:
        """A page of the reviews of a user, newest first; its ``next`` is the ``cursor`` of the next page."""
        return self._do(calls.user(user, limit=limit, cursor=cursor))

    def item(self, item: str, *, limit: int | None = None, cursor: str | None = None) -> ReviewList:
        """A page of the reviews of an item, newest first; its ``next`` is the ``cursor`` of the next page."""
        return self._do(calls.item(item, limit=limit, cursor=cursor))

    def users(self, prefix: str = "", *, limit: int | None = None, cursor: str | None = None) -> EntityList:
        """A page of users by the beginning of their identifier; its ``next`` is the ``cursor`` of the next page."""
        return self._do(calls.find_users(prefix, limit=limit, cursor=cursor))

    def items(self, prefix: str = "", *, limit: int | None = None, cursor: str | None = None) -> EntityList:
        """A page of items by the beginning of their identifier; its ``next`` is the ``cursor`` of the next page."""
        return self._do(calls.find_items(prefix, limit=limit, cursor=cursor))

    def about(self) -> About:
        """The live model and its accuracy."""
        return self._do(calls.about())

    def alive(self) -> Alive:
        """Does the process run?"""
        return self._do(calls.alive())

    def ready(self) -> Ready:
        """Can it serve? Never retried; raises ``UnavailableError`` with ``reasons`` if not."""
        return self._do(calls.ready())

    def version(self) -> Version:
        """What is running."""
        return self._do(calls.version())

    def metrics(self) -> str:
        """All metrics of the process in Prometheus's text format."""
        return self._do(calls.metrics())

    def _do(self, call: Call[T]) -> T:
        conversation = Conversation(call, self._policy, self._address)
        while (pause := conversation.pause_after(self._outcome(conversation, conversation.request()))) is not None:
            time.sleep(pause)
        return conversation.result()

    def _outcome(self, conversation: Conversation[Any], request: dict[str, Any]) -> Outcome:
        """The outcome of one attempt, by the deadline.

        Made in a thread of its own, for 0.1 ms: nothing can interrupt the resolution of a host name, or the wait for a
        head that arrives byte by byte. Whoever is late is left behind.
        """
        outcome: Future[Outcome] = Future()

        def attempt() -> None:
            try:
                outcome.set_result(self._attempt(conversation, request))
            except BaseException as error:
                outcome.set_exception(error)

        Thread(target=copy_context().run, args=(attempt,), name="ubert-client", daemon=True).start()
        try:
            return outcome.result(request["timeout"])
        except TimeoutError:
            raise conversation.too_late() from None

    def _attempt(self, conversation: Conversation[Any], request: dict[str, Any]) -> Outcome:
        if self._http.is_closed:
            raise ClientError("the client is closed; make another")
        try:
            with self._http.stream(**request) as response:
                content = bytearray()
                for piece in response.iter_bytes():
                    content += piece
                    conversation.check_progress(len(content))
                return Received(status=response.status_code, headers=response.headers, content=bytes(content))
        except httpx.RequestError as error:
            return error
