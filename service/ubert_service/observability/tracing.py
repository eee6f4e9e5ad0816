"""The port through which requests are traced."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class RequestSpan(Protocol):
    """The span of a request."""

    def answered(self, *, route: str, status: int | None) -> None:
        """The request was answered. ``route``: the path template; ``status`` None: the caller left before."""


class WorkSpan(Protocol):
    """The span of a request's work, from the queue to its answer."""

    def taken(self) -> None:
        """A thread has taken it from the queue."""


class Tracing(Protocol):
    """Makes spans, on the event loop only. No span holds an identifier, a path or a text."""

    def request(
        self, *, method: str, headers: Mapping[str, str], request_id: str
    ) -> AbstractContextManager[RequestSpan]:
        """The span of a request, which continues the trace in its headers (W3C Trace Context)."""

    def work(self, *, tokens: int) -> AbstractContextManager[WorkSpan]:
        """The span of work of the current request. ``tokens``: the most that it can read."""


class Untraced:
    """A ``Tracing`` that makes no spans."""

    @contextmanager
    def request(self, *, method: str, headers: Mapping[str, str], request_id: str) -> Iterator[RequestSpan]:
        del method, headers, request_id
        yield self

    @contextmanager
    def work(self, *, tokens: int) -> Iterator[WorkSpan]:
        del tokens
        yield self

    def answered(self, *, route: str, status: int | None) -> None:
        pass

    def taken(self) -> None:
        pass
