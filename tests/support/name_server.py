"""A DNS server on loopback with one name, as Docker's for the replicas of a service."""

import socket
import struct
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

_HEADER = struct.Struct(">6H")
_ANSWER = struct.Struct(">HHHIH4s")
_QUESTION_TAIL = struct.Struct(">HH")
_RESPONSE = 0x8180
_POINTER_TO_QUESTION_NAME = 0xC00C
_A, _IN = 1, 1
_TTL_S = 1


class NameServer:
    """Answers any query for IPv4 addresses with ``addresses``, and any other query with none."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses

    def __enter__(self) -> Self:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.sendto(b"", self._socket.getsockname())  # wakes and ends the thread
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            query, sender = self._socket.recvfrom(4096)
            if not query:
                return
            self._socket.sendto(self._answer(query), sender)

    def _answer(self, query: bytes) -> bytes:
        number = _HEADER.unpack_from(query)[0]
        end = query.index(b"\0", _HEADER.size) + 1 + _QUESTION_TAIL.size
        kind, _ = _QUESTION_TAIL.unpack_from(query, end - _QUESTION_TAIL.size)
        found = [socket.inet_aton(address) for address in self._addresses] if kind == _A else []
        answers = [_ANSWER.pack(_POINTER_TO_QUESTION_NAME, _A, _IN, _TTL_S, len(ip), ip) for ip in found]
        header = _HEADER.pack(number, _RESPONSE, 1, len(answers), 0, 0)
        return header + query[_HEADER.size : end] + b"".join(answers)
