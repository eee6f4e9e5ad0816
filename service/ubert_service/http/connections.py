"""Bounds what one connection may cost: the size of a request's head, the time until it is complete, the number of
requests at once, and the time that an answer may stay unread.
"""

import asyncio
import sys
from collections.abc import Sequence

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

MAX_HEAD_BYTES = 64 * 1024
_MOST_WAITING = 100
_UPGRADE = b"upgrade"
_CONNECT = b"CONNECT"


class BoundedConnection(HttpToolsProtocol):
    """uvicorn's protocol, with these bounds against a slow or hostile caller.

    Bytes of a head, and of the framing around a chunked body: unbounded, they could fill the memory and block the event
    loop, since the parser copies a header again with each piece of it that arrives. A head that arrives in one piece is
    read, whatever its length.

    Time until a head is complete: ``head_seconds`` from the opening of the connection, or from the first bytes after an
    answer; then the connection is closed. Else one caller could take all connections of the process. Idle connections
    are closed by uvicorn's own ``timeout_keep_alive``.

    Time in which a caller reads nothing of its answer: after ``unread_seconds`` the connection is aborted. Else callers
    that never read could fill the memory with answers.

    A request to upgrade the protocol, as Java's HttpClient sends by default, is answered in HTTP/1.1. The parser gives
    all that follows the head to the new protocol: a body would be lost or read as another request, and a pipelined
    request lost. So the head is parsed again without its Upgrade header. CONNECT, which upgrades by its method, is
    refused.

    Requests sent at once (pipelining): if more than ``_MOST_WAITING`` wait for the first, the connection is closed.
    uvicorn queues any number: 7 MB of the shortest kept everybody waiting for most of a minute. And it tells only the
    last that its caller has left. Here all are told: else the first is worked at in vain, and its answer, written to a
    closed connection, is logged as an error.
    """

    head_seconds = 30.0
    """As long as a body may take by default, since the rest of a refused body has to arrive as well."""
    unread_seconds = 30.0
    _head_to_reparse: bytes | None = None
    _head_end = 0
    """Where, in the bytes that arrived with the head to reparse, the head ended."""
    _bytes_outside_bodies = 0
    """Bytes since the last body byte, or since a head was complete."""
    _head_timer: asyncio.TimerHandle | None = None
    """Set while a head is awaited."""
    _unread_timer: asyncio.TimerHandle | None = None
    """Set while the system's send buffer is full."""
    _unanswered: Sequence[RequestResponseCycle] = ()
    """The requests that have begun or wait for the one before."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._stop_unread_timer()
        super().connection_lost(exc)
        for cycle in self._unanswered:
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    def data_received(self, data: bytes) -> None:
        self._bytes_outside_bodies += len(data)
        super().data_received(data)
        while self._head_to_reparse is not None:
            data, self._head_to_reparse = self._head_to_reparse + data[self._head_end :], None
            super().data_received(data)
        if self.transport.is_closing():
            return
        if self._bytes_outside_bodies > MAX_HEAD_BYTES:
            self.send_400_response(f"The head of the request has more than {MAX_HEAD_BYTES} bytes.")
        elif self._head_timer is None and self.cycle and self.cycle.response_complete:
            self._start_head_timer()

    def on_headers_complete(self) -> None:
        self._bytes_outside_bodies = 0
        self._stop_head_timer()
        if len(self.pipeline) == _MOST_WAITING:
            raise ValueError("too many requests at once")  # which uvicorn answers like a malformed head
        if not self.parser.should_upgrade():
            super().on_headers_complete()
            self._unanswered = [*(cycle for cycle in self._unanswered if not cycle.response_complete), self.cycle]
        elif self.parser.get_method() == _CONNECT:  # upgrades whatever its headers say
            raise ValueError("CONNECT")
        else:
            self._head_to_reparse = self._head_without_upgrade()

    def on_body(self, body: bytes) -> None:
        self._bytes_outside_bodies = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._head_to_reparse is None:
            super().on_message_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """Called while the parser's exception is handled, which holds the end of the head. Replaces uvicorn's warning,
        whose advice to install a library would not help.
        """
        upgrade = sys.exception()
        assert upgrade is not None
        (self._head_end,) = upgrade.args

    def pause_writing(self) -> None:
        super().pause_writing()
        self._check_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_unread_timer()

    def _head_without_upgrade(self) -> bytes:
        line = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        return line + b"".join(b"%b: %b\r\n" % header for header in self.headers if header[0] != _UPGRADE) + b"\r\n"

    def _check_reader(self, unsent_before: int | None = None) -> None:
        """Abort if as many bytes are unsent as ``unread_seconds`` ago; else check again that much later."""
        unsent = self.transport.get_write_buffer_size()
        if unsent == unsent_before:
            self.transport.abort()
        else:
            self._unread_timer = self.loop.call_later(self.unread_seconds, self._check_reader, unsent)

    def _stop_unread_timer(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(self.head_seconds, self.timeout_keep_alive_handler)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
