"""How much of a request may come before there is anything of it to answer or to refuse."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024


class BoundedHeads(HttpToolsProtocol):
    """uvicorn's protocol, with a bound on the head of a request, and on what stands about a body that comes in chunks.

    Without it one caller could fill the memory, and keep the event loop from everyone else: what comes of a header is
    copied anew with each piece of it. A head that comes in one piece is read, whatever its length.
    """

    _beside_bodies = 0
    """Bytes since the last that belonged to a body, or since a head was whole."""

    def data_received(self, data: bytes) -> None:
        self._beside_bodies += len(data)
        super().data_received(data)
        if self._beside_bodies > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"The head of the request has more than {MAX_HEAD_BYTES} bytes.")

    def on_headers_complete(self) -> None:
        self._beside_bodies = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._beside_bodies = 0
        super().on_body(body)
