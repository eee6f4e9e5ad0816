"""``BoundedConnection``: time limits of heads and of unread answers, upgrade requests, and pipelining."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing

import pytest
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.server import ServerState

from ubert_service.http.connections import BoundedConnection

TIMEOUT_S = 60.0
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LONG_REQUEST = REQUEST.replace(b"/", b"/long", 1)
LONG_ANSWER = "x" * 64 * 1024 * 1024
"""More than the system buffers for a caller that reads nothing."""

SHORT_S, AMPLE_S = 0.01, 0.5
"""Time limits. A whole head certainly arrives within the second."""
LoopFactory = Callable[[], asyncio.AbstractEventLoop]
LOOPS: list[LoopFactory] = [asyncio.new_event_loop, uvloop.new_event_loop]
"""The service runs on uvloop; where that is not installed, uvicorn takes asyncio's own loop."""


class Caller:
    """The caller's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def answer(self) -> bytes:
        async with asyncio.timeout(TIMEOUT_S):
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            assert length is not None
            return await self._reader.readexactly(int(length[1]))

    async def read_to_end(self) -> bytes:
        """Everything that arrives until the connection is closed."""
        async with asyncio.timeout(TIMEOUT_S):
            return await self._reader.read()

    async def is_closed(self) -> bool:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await self._reader.read() == b""
        except ConnectionResetError:  # closed with unread bytes of the request
            return True


class Serving:
    """An app behind ``BoundedConnection``, whose ``/`` answers once ``may_answer`` is set."""

    def __init__(self, *, head_seconds: float = TIMEOUT_S, unread_seconds: float = TIMEOUT_S) -> None:
        class Connection(BoundedConnection):
            pass

        Connection.head_seconds, Connection.unread_seconds = head_seconds, unread_seconds
        self._protocol = Connection
        self.may_answer = asyncio.Event()
        self.disconnected: list[str] = []
        """Paths of the requests that have received the disconnect of their caller."""
        self.state = ServerState()

    @asynccontextmanager
    async def callers(self, number: int) -> AsyncIterator[list[Caller]]:
        async def answer(request: Request) -> Response:
            await self.may_answer.wait()
            return PlainTextResponse("done")

        async def answer_long(request: Request) -> Response:
            del request
            return PlainTextResponse(LONG_ANSWER)

        async def echo(request: Request) -> Response:
            return Response(await request.body())

        async def wait_for_disconnect(request: Request) -> Response:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            self.disconnected.append(request.url.path)
            return PlainTextResponse("not read")

        routes = [
            Route("/", answer),
            Route("/long", answer_long),
            Route("/body", echo, methods=["POST"]),
            Route("/wait/{number}", wait_for_disconnect),
        ]
        # The keep-alive timeout is longer than any test, so that it closes no connection.
        config = uvicorn.Config(Starlette(routes=routes), log_config=None, timeout_keep_alive=600)
        config.load()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: self._protocol(config, self.state, {}), "127.0.0.1", 0)
        callers = []
        try:
            for _ in range(number):
                callers.append(Caller(*await asyncio.open_connection(*server.sockets[0].getsockname())))
            yield callers
        finally:
            for caller in callers:
                caller.writer.close()
            server.close()
            await server.wait_closed()


@pytest.mark.parametrize("beginning", [b"", b"GET / HTT", b"\r\n", REQUEST[:-2]])
def test_a_connection_whose_head_is_not_complete_in_time_is_closed(beginning: bytes) -> None:
    async def scenario() -> None:
        async with Serving(head_seconds=SHORT_S).callers(1) as (caller,):
            caller.writer.write(beginning)
            assert await caller.is_closed()

    asyncio.run(scenario())


@pytest.mark.parametrize("beginning", [b"GET / HTT", b"\r\n"])
def test_a_connection_whose_second_head_is_not_complete_in_time_is_closed(beginning: bytes) -> None:
    async def scenario() -> None:
        serving = Serving(head_seconds=AMPLE_S)
        serving.may_answer.set()
        async with serving.callers(1) as (caller,):
            caller.writer.write(REQUEST)
            assert await caller.answer() == b"done"
            caller.writer.write(beginning)
            assert await caller.is_closed()

    asyncio.run(scenario())


def test_the_head_limit_applies_neither_during_an_answer_nor_between_requests() -> None:
    async def scenario() -> None:
        serving = Serving(head_seconds=AMPLE_S)
        async with serving.callers(2) as (caller, idle):
            caller.writer.write(REQUEST)
            assert await idle.is_closed()  # so the first connection's time limit has passed, too
            serving.may_answer.set()
            assert await caller.answer() == b"done"
        async with serving.callers(2) as (caller, idle):
            caller.writer.write(REQUEST)
            assert await caller.answer() == b"done"
            assert await idle.is_closed()
            caller.writer.write(REQUEST)
            assert await caller.answer() == b"done"

    asyncio.run(scenario())


@pytest.mark.parametrize("loop", LOOPS)
def test_a_connection_whose_answer_is_not_read_is_aborted(loop: LoopFactory) -> None:
    async def scenario() -> None:
        serving = Serving(unread_seconds=SHORT_S)
        async with serving.callers(1) as (caller,), asyncio.timeout(TIMEOUT_S):
            caller.writer.write(LONG_REQUEST)
            await asyncio.sleep(0)
            while not serving.state.total_requests or serving.state.connections:
                await asyncio.sleep(SHORT_S)  # the caller's own reader stops once its buffer is full

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario())


class UnreadTransport(asyncio.Transport):
    """A transport in whose buffer so many bytes of an answer wait."""

    def __init__(self, waiting: int) -> None:
        super().__init__()
        self.waiting = waiting
        self.aborted = False

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None: ...


def connection_to(transport: UnreadTransport, loop: asyncio.AbstractEventLoop) -> BoundedConnection:
    """A connection with an answer in the buffer of its transport."""
    config = uvicorn.Config(Starlette(), log_config=None)
    config.load()
    connection = BoundedConnection(config, ServerState(), {}, _loop=loop)
    connection.connection_made(transport)
    connection.pause_writing()
    return connection


def test_a_slow_reader_is_aborted_only_once_it_stops_reading() -> None:
    timers: list[tuple[float, Callable[[], object]]] = []

    class Clock(asyncio.SelectorEventLoop):
        def call_later(
            self, delay: float, callback: Callable[..., object], *args: object, context: object = None
        ) -> asyncio.TimerHandle:
            timers.append((delay, lambda: callback(*args)))
            return super().call_later(delay, lambda: None)

    with closing(Clock()) as loop:
        transport = UnreadTransport(100)
        connection_to(transport, loop)
        for waiting in (90, 89):
            transport.waiting = waiting
            delay, fire = timers.pop()
            assert delay == BoundedConnection.unread_seconds
            fire()
            assert not transport.aborted
        timers.pop()[1]()
        assert transport.aborted


@pytest.mark.parametrize(
    "end", [lambda connection: connection.resume_writing(), lambda connection: connection.connection_lost(None)]
)
def test_the_unread_limit_ends_when_the_answer_is_read_or_the_connection_is_lost(
    end: Callable[[BoundedConnection], None],
) -> None:
    with closing(asyncio.new_event_loop()) as loop:
        connection = connection_to(UnreadTransport(100), loop)
        timer = connection._unread_timer
        end(connection)
        assert timer is not None
        assert timer.cancelled()


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
UPGRADE_HEAD = b"POST /body HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
OF_KNOWN_LENGTH = UPGRADE_HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(SMUGGLED), SMUGGLED)
IN_CHUNKS = UPGRADE_HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)
PIECES: dict[str, Callable[[bytes], list[bytes]]] = {
    "in one piece": lambda request: [request],
    "head and body apart": lambda request: list(request.partition(b"\r\n\r\n")),
    "byte by byte": lambda request: [bytes([byte]) for byte in request],
    "with the next request": lambda request: [request[:-5], request[-5:] + request],
}


@pytest.mark.parametrize("request_", [OF_KNOWN_LENGTH, IN_CHUNKS], ids=["of known length", "in chunks"])
@pytest.mark.parametrize("pieces", PIECES.values(), ids=PIECES)
def test_an_upgrade_request_keeps_its_body(request_: bytes, pieces: Callable[[bytes], list[bytes]]) -> None:
    """The parser stops at such a head; so the body was once lost, or its later pieces were read as a new request."""
    sent = pieces(request_)

    async def scenario() -> None:
        serving = Serving()
        serving.may_answer.set()
        async with serving.callers(1) as (caller,):
            for piece in sent:
                caller.writer.write(piece)
                await caller.writer.drain()
                await asyncio.sleep(0)
            for _ in range(b"".join(sent).count(UPGRADE_HEAD)):
                assert await caller.answer() == SMUGGLED
            caller.writer.write(REQUEST)
            assert await caller.answer() == b"done"

    asyncio.run(scenario())


@pytest.mark.parametrize("framing", [b"", b"Content-Length: %d\r\n" % len(SMUGGLED)], ids=["no body", "a body"])
@pytest.mark.parametrize(
    "headers", [b"", b"Connection: Upgrade\r\nUpgrade: h2c\r\n"], ids=["by method", "by method and header"]
)
def test_connect_is_refused_and_what_follows_is_not_read(headers: bytes, framing: bytes) -> None:
    """Parsed again without the Upgrade header, it would still ask for an upgrade, and so without end."""

    async def scenario() -> None:
        async with Serving().callers(1) as (caller,):
            caller.writer.write(b"CONNECT /body HTTP/1.1\r\nHost: x\r\n%b%b\r\n" % (headers, framing) + SMUGGLED)
            answers = await caller.read_to_end()
            assert answers.startswith(b"HTTP/1.1 400 Bad Request\r\n")
            assert answers.count(b"HTTP/1.1 ") == 1

    asyncio.run(scenario())


def test_upgrade_requests_without_a_body_and_what_is_pipelined_after_them_are_answered_in_http_1_1() -> None:
    async def scenario() -> None:
        serving = Serving()
        serving.may_answer.set()
        upgrade = REQUEST[:-2] + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
        async with serving.callers(1) as (caller,):
            for sent in ([upgrade], [upgrade], [upgrade, REQUEST], [upgrade, OF_KNOWN_LENGTH, upgrade, REQUEST]):
                caller.writer.write(b"".join(sent))
                for request in sent:
                    assert await caller.answer() == (SMUGGLED if request == OF_KNOWN_LENGTH else b"done")

    asyncio.run(scenario())


def test_a_connection_on_which_too_many_requests_wait_is_closed() -> None:
    async def scenario() -> None:
        serving = Serving()
        async with serving.callers(2) as (patient, greedy):
            patient.writer.write(REQUEST * 101)
            greedy.writer.write(REQUEST * 102)
            assert (await greedy.read_to_end()).startswith(b"HTTP/1.1 400")
            serving.may_answer.set()
            assert [await patient.answer() for _ in range(101)] == [b"done"] * 101

    asyncio.run(scenario())


@pytest.mark.parametrize("loop", LOOPS)
def test_after_a_disconnect_no_pipelined_request_is_worked_on(
    loop: LoopFactory, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        serving = Serving()
        async with serving.callers(1) as (caller,):
            for number in (1, 2):
                caller.writer.write(REQUEST.replace(b"/", b"/wait/%d" % number, 1))
            while not serving.state.tasks:
                await asyncio.sleep(0)
            caller.writer.close()
            async with asyncio.timeout(TIMEOUT_S):
                while serving.state.tasks:
                    await asyncio.sleep(0.001)
        assert serving.disconnected == ["/wait/1"]

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario())
    assert not caplog.records
