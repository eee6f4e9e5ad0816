"""What one connection may cost: how much of a request may come and how long it may take, before there is anything of it
to answer or to refuse, and how long its answer may lie here unread.
"""

import asyncio
import sys

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024
_TELL_OF_A_BODY = frozenset({b"content-length", b"transfer-encoding"})
_UPGRADE = b"upgrade"
_CONNECT = b"CONNECT"


class BoundedConnection(HttpToolsProtocol):
    """uvicorn's protocol, with a bound on the head of a request, and on what stands about a body that comes in chunks.

    Without it one caller could fill the memory, and keep the event loop from everyone else: what comes of a header is
    copied anew with each piece of it. A head that comes in one piece is read, whatever its length.

    A connection is closed where ``head_seconds`` after its beginning, or after the first bytes that follow an answer,
    there is no whole head: else one caller could take all connections that a process may have. How long an idle one is
    kept between two requests is uvicorn's own ``timeout_keep_alive``.

    It is cut where a caller takes nothing of an answer for ``unread_seconds``: else whoever never reads what it asks
    for could fill the memory with answers.

    A request that asks for another protocol, as Java's HttpClient does unless it is told not to, is answered in this
    one. The parser takes what follows its head for that protocol's: the body would be lost, or be read as a request of
    its own. So where there is a body, the head is read once more without the question; CONNECT asks by its method, and
    is refused.
    """

    head_seconds = 30.0
    """As long as a body may take by default: also what is left of one that was refused has to arrive."""
    unread_seconds = 30.0
    _head_again: bytes | None = None
    """A head that is to be read once more, and in ``_rest`` where in the bytes that came what follows it begins."""
    _rest = 0
    _beside_bodies = 0
    """Bytes since the last that belonged to a body, or since a head was whole."""
    _overdue: asyncio.TimerHandle | None = None
    """Set while a head is awaited."""
    _unread: asyncio.TimerHandle | None = None
    """Set while more of an answer waits to be sent than the system takes."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._await_no_head()
        self._await_no_reader()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._beside_bodies += len(data)
        super().data_received(data)
        while self._head_again is not None:
            data, self._head_again = self._head_again + data[self._rest :], None
            super().data_received(data)
        if self.transport.is_closing():
            return
        if self._beside_bodies > MAX_HEAD_BYTES:
            self.send_400_response(f"The head of the request has more than {MAX_HEAD_BYTES} bytes.")
        elif self._overdue is None and self.cycle and self.cycle.response_complete:
            self._await_head()

    def on_headers_complete(self) -> None:
        self._beside_bodies = 0
        self._await_no_head()
        if not self.parser.should_upgrade() or all(name not in _TELL_OF_A_BODY for name, _ in self.headers):
            super().on_headers_complete()
        elif self.parser.get_method() == _CONNECT:  # asks for a tunnel, whatever its head says besides
            raise ValueError("CONNECT with a body")  # which uvicorn answers as a head that cannot be read
        else:
            self._head_again = self._head_without_upgrade()

    def on_body(self, body: bytes) -> None:
        self._beside_bodies = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._head_again is None:
            super().on_message_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """Called while the parser's exception is handled, which names where the head ended. Nothing is amiss that
        uvicorn's words, to install a library, would help.
        """
        ended = sys.exception()
        assert ended is not None
        (self._rest,) = ended.args

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._await_no_reader()

    def _head_without_upgrade(self) -> bytes:
        line = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        return line + b"".join(b"%b: %b\r\n" % header for header in self.headers if header[0] != _UPGRADE) + b"\r\n"

    def _await_reader(self, waited_with: int | None = None) -> None:
        """Cut the connection if as much waits to be sent as ``unread_seconds`` ago; else look again after these."""
        left = self.transport.get_write_buffer_size()
        if left == waited_with:
            self.transport.abort()
        else:
            self._unread = self.loop.call_later(self.unread_seconds, self._await_reader, left)

    def _await_no_reader(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _await_head(self) -> None:
        self._overdue = self.loop.call_later(self.head_seconds, self.timeout_keep_alive_handler)

    def _await_no_head(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None
