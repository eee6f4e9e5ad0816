"""The port through which requests are traced; without a tracing backend nothing is."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class RequestSpan(Protocol):
    """One request, while it is answered."""

    def answered(self, *, route: str, status: int | None) -> None:
        """What was answered; ``route`` is the template of the address, ``status`` None if the caller went before."""


class WorkSpan(Protocol):
    """Work of a request, from the queue to its answer."""

    def taken(self) -> None:
        """A thread has taken it from the queue."""


class Tracing(Protocol):
    """Makes spans, for the thread of the event loop. No span holds an identifier, an address or a text."""

    def request(
        self, *, method: str, headers: Mapping[str, str], request_id: str
    ) -> AbstractContextManager[RequestSpan]:
        """Span of a request, which carries on the trace that its headers name (W3C Trace Context)."""

    def work(self, *, tokens: int) -> AbstractContextManager[WorkSpan]:
        """Span of work of the request at hand that reads at most so many tokens."""


class Untraced:
    """A ``Tracing`` that makes nothing."""

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
