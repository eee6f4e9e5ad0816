"""One call without I/O: what to send, and after each outcome whether to retry, and when."""

import email.utils
import time
from collections.abc import Callable, Mapping
from datetime import UTC
from typing import Any, Generic

import httpx

from ubert_service.client.calls import Call, Received, T
from ubert_service.client.errors import (
    MAY_HAVE_BEGUN,
    ClientError,
    DeadlineExceededError,
    OverloadedError,
    ProblemError,
    ServiceUnreachableError,
    UnavailableError,
    UnexpectedAnswerError,
    problem_error,
)
from ubert_service.client.policy import RetryPolicy
from ubert_service.schemas import LEAST_REQUEST_SECONDS, MAX_REQUEST_SECONDS, REQUEST_TIMEOUT

MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""Twice the size of the longest ranking, with identifiers of the greatest length that are escaped throughout."""
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)

Outcome = Received | httpx.RequestError


class Conversation(Generic[T]):
    """One call from its first attempt to its result. An I/O loop sends and sleeps as it says::

    conversation = Conversation(call, policy, "http://host:8000")
    while (pause := conversation.pause_after(send(**conversation.request()))) is not None:
        sleep(pause)
    return conversation.result()
    """

    def __init__(
        self, call: Call[T], policy: RetryPolicy, address: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._call = call
        self._policy = policy
        self._address = address
        self._clock = clock
        self._deadline = clock() + policy.deadline_s
        self._attempt = 0
        self._may_be_done = False
        self._result: Callable[[], T] | None = None

    def check_progress(self, received: int) -> None:
        """To be called after each piece of an answer, of which so many bytes have arrived: a timeout bounds only each
        wait for bytes, and they could arrive one by one, or without end.

        Raises ``DeadlineExceededError`` past the deadline, and ``UnexpectedAnswerError`` above ``MAX_ANSWER_BYTES``.
        """
        self._require_time()
        if received > MAX_ANSWER_BYTES:
            raise UnexpectedAnswerError(
                f"{self._name}: the answer has more than {MAX_ANSWER_BYTES} bytes; is {self._address} a u-bert service?"
            )

    def _require_time(self, least: float = 0.0) -> float:
        """Seconds until the deadline. Raises ``DeadlineExceededError`` unless ``least`` are left, or any."""
        left = self._deadline - self._clock()
        if left <= 0 or left < least:
            raise self.too_late()
        return left

    def request(self) -> dict[str, Any]:
        """The next attempt, as arguments of :meth:`httpx.Client.build_request`."""
        left = self._require_time(LEAST_REQUEST_SECONDS)
        self._attempt += 1
        headers = {
            REQUEST_TIMEOUT: f"{min(left, MAX_REQUEST_SECONDS):.3f}",
            "Accept": "application/json",
            **self._call.headers,
        }
        body = self._call.body
        if body is not None:
            headers["Content-Type"] = "application/json"
        return {
            "method": self._call.method,
            "url": self._call.path,
            "params": dict(self._call.query),
            "content": None if body is None else body.model_dump_json(exclude_unset=True).encode("utf-8"),
            "headers": headers,
            "timeout": left,
        }

    def pause_after(self, outcome: Outcome) -> float | None:
        """Seconds to wait before the next attempt; None: there is a result. Raises ``ClientError`` on failure."""
        if isinstance(outcome, httpx.RequestError):
            # Only the class of the error: messages of the transport may hold addresses with credentials.
            broken = ServiceUnreachableError(
                f"{self._name}: {type(outcome).__name__}; is the service up at {self._address}, and any proxy?"
            )
            self._may_be_done |= not isinstance(outcome, _NEVER_SENT)
            return self._pause_or_raise(broken, cause=outcome)
        if outcome.status < 300:
            self._result = lambda: self._call.read(outcome)
            return None
        problem = problem_error(outcome.status, outcome.content, outcome.headers.get("x-request-id"))
        if isinstance(problem, OverloadedError | UnavailableError):
            self._may_be_done |= isinstance(problem, UnavailableError) and problem.type in MAY_HAVE_BEGUN
            return self._pause_or_raise(problem, retry_after_s=_retry_after_s(outcome.headers))
        if self._may_be_done and problem.type == self._call.done_already:
            self._result = lambda: self._call.read(outcome)
            return None
        raise problem

    def result(self) -> T:
        """The result, once :meth:`pause_after` returned None. Raises ``UnexpectedAnswerError`` if it is malformed."""
        assert self._result is not None
        return self._result()

    @property
    def _name(self) -> str:
        # The method and first path segment only: what follows may be an identifier.
        return f"{self._call.method} /{self._call.path.split('/')[1]}"

    def _pause_or_raise(
        self, error: ClientError, *, retry_after_s: float = 0.0, cause: Exception | None = None
    ) -> float:
        if not self._call.repeatable or self._attempt >= self._policy.attempts:
            raise error from cause
        pause = self._policy.pause_s(self._attempt, retry_after_s)
        if self._clock() + pause >= self._deadline:
            if isinstance(error, ProblemError):
                raise error  # the service's own reason says more than that time ran out
            raise self.too_late() from error
        return pause

    def too_late(self) -> DeadlineExceededError:
        """The error to raise once the deadline has passed, which the I/O loop may notice first."""
        return DeadlineExceededError(
            f"{self._name}: no answer within {self._policy.deadline_s:g} s and {self._attempt} attempt(s); "
            "raise deadline_s of the RetryPolicy to wait longer"
        )


def _retry_after_s(headers: Mapping[str, str]) -> float:
    """Seconds that a ``Retry-After`` header asks for, given as a number or as a date; 0 where there is none."""
    value = headers.get("retry-after", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        date = email.utils.parsedate_to_datetime(value)
        if date.tzinfo is None:  # asctime, one of the formats of RFC 9110, names no zone; all are in UTC
            date = date.replace(tzinfo=UTC)
        return max(date.timestamp() - time.time(), 0.0)
    except (ValueError, OverflowError):
        return 0.0
