"""The port through which requests are traced."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

Answered = Callable[[str, int | None], None]
"""To be called once the request has ended, with the path template and the status; None: without an answer."""
Taken = Callable[[], None]
"""To be called once a thread has taken the work from the queue."""


class Tracing(Protocol):
    """Makes spans, on the event loop only. No span holds an identifier, a path or a text."""

    def request(self, *, method: str, headers: Mapping[str, str], request_id: str) -> AbstractContextManager[Answered]:
        """The span of a request, which continues the trace in its headers (W3C Trace Context)."""

    def work(self, *, tokens: int) -> AbstractContextManager[Taken]:
        """The span of work of the current request, from the queue to its answer. ``tokens``: the most that it reads."""


class Untraced:
    """A ``Tracing`` that makes no spans."""

    def request(self, *, method: str, headers: Mapping[str, str], request_id: str) -> AbstractContextManager[Answered]:
        del method, headers, request_id
        return nullcontext(lambda _route, _status: None)

    def work(self, *, tokens: int) -> AbstractContextManager[Taken]:
        del tokens
        return nullcontext(lambda: None)
