"""A connection without a whole request is closed in time, and so is one whose answer nobody reads."""

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

PATIENCE_S = 60.0
WHOLE = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
FOR_LONG = WHOLE.replace(b"/", b"/long", 1)
LONG = "x" * 64 * 1024 * 1024
"""More than the system takes for a caller who reads nothing."""


AT_ONCE, IN_A_WHILE = 0.01, 0.5
"""Seconds that a head may take. In the second a whole one surely arrives."""
LoopFactory = Callable[[], asyncio.AbstractEventLoop]
LOOPS: list[LoopFactory] = [asyncio.new_event_loop, uvloop.new_event_loop]
"""The service runs on the second; the first is what uvicorn takes where that is not installed."""


class Caller:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def answer(self) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            assert length is not None
            return await self._reader.readexactly(int(length[1]))

    async def refusal(self) -> bytes:
        """All that came until the connection was closed."""
        async with asyncio.timeout(PATIENCE_S):
            return await self._reader.read()

    async def is_closed(self) -> bool:
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self._reader.read() == b""
        except ConnectionResetError:  # it was closed before all that was sent had been read
            return True


class Serving:
    """An app that answers once ``may_answer``, behind the protocol."""

    def __init__(self, *, head_seconds: float = PATIENCE_S, unread_seconds: float = PATIENCE_S) -> None:
        class Connection(BoundedConnection):
            pass

        Connection.head_seconds, Connection.unread_seconds = head_seconds, unread_seconds
        self._protocol = Connection
        self.may_answer = asyncio.Event()
        self.left: list[str] = []
        """Paths of the requests that were told that their caller has left."""
        self.state = ServerState()

    @asynccontextmanager
    async def callers(self, number: int) -> AsyncIterator[list[Caller]]:
        async def answer(request: Request) -> Response:
            await self.may_answer.wait()
            return PlainTextResponse("done")

        async def answer_at_length(request: Request) -> Response:
            del request
            return PlainTextResponse(LONG)

        async def answer_with_the_body(request: Request) -> Response:
            return Response(await request.body())

        async def wait_until_left(request: Request) -> Response:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            self.left.append(request.url.path)
            return PlainTextResponse("read by nobody")

        # Idle between two requests for longer than any test, so that it is not that which closes a connection.
        answered = [Route("/long", answer_at_length), Route("/body", answer_with_the_body, methods=["POST"])]
        awaited = Route("/left/{number}", wait_until_left)
        app = Starlette(routes=[Route("/", answer), awaited, *answered])
        config = uvicorn.Config(app, log_config=None, timeout_keep_alive=600)
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


@pytest.mark.parametrize("beginning", [b"", b"GET / HTT", b"\r\n", WHOLE[:-2]])
def test_a_connection_without_a_whole_head_is_closed(beginning: bytes) -> None:
    async def course() -> None:
        async with Serving(head_seconds=AT_ONCE).callers(1) as (caller,):
            caller.writer.write(beginning)
            assert await caller.is_closed()

    asyncio.run(course())


@pytest.mark.parametrize("beginning", [b"GET / HTT", b"\r\n"])
def test_so_is_one_whose_second_head_does_not_end(beginning: bytes) -> None:
    async def course() -> None:
        serving = Serving(head_seconds=IN_A_WHILE)
        serving.may_answer.set()
        async with serving.callers(1) as (caller,):
            caller.writer.write(WHOLE)
            assert await caller.answer() == b"done"
            caller.writer.write(beginning)
            assert await caller.is_closed()

    asyncio.run(course())


def test_a_request_that_is_worked_on_and_a_connection_between_two_are_left_alone() -> None:
    async def course() -> None:
        serving = Serving(head_seconds=IN_A_WHILE)
        async with serving.callers(2) as (caller, idle):
            caller.writer.write(WHOLE)
            # Its own time would have been over before.
            assert await idle.is_closed()
            serving.may_answer.set()
            assert await caller.answer() == b"done"
        async with serving.callers(2) as (caller, idle):
            caller.writer.write(WHOLE)
            assert await caller.answer() == b"done"
            assert await idle.is_closed()
            caller.writer.write(WHOLE)
            assert await caller.answer() == b"done"

    asyncio.run(course())


@pytest.mark.parametrize("loop", LOOPS)
def test_who_reads_nothing_of_an_answer_does_not_keep_it_in_memory(loop: LoopFactory) -> None:
    async def course() -> None:
        serving = Serving(unread_seconds=AT_ONCE)
        async with serving.callers(1) as (caller,), asyncio.timeout(PATIENCE_S):
            caller.writer.write(FOR_LONG)
            await asyncio.sleep(0)
            while not serving.state.total_requests or serving.state.connections:
                await asyncio.sleep(AT_ONCE)  # asyncio's reader stops once its own buffer is full

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(course())


class Unread(asyncio.Transport):
    """So many bytes of an answer wait to be sent."""

    def __init__(self, waiting: int) -> None:
        super().__init__()
        self.waiting = waiting
        self.aborted = False

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None: ...


def test_who_takes_something_of_an_answer_in_time_keeps_the_connection() -> None:
    timers: list[tuple[float, Callable[[], object]]] = []

    class Clock(asyncio.SelectorEventLoop):
        def call_later(  # type: ignore[override]
            self, delay: float, callback: Callable[..., object], *args: object, context: object = None
        ) -> asyncio.TimerHandle:
            timers.append((delay, lambda: callback(*args)))
            return super().call_later(delay, lambda: None)

    with closing(Clock()) as loop:
        config = uvicorn.Config(Starlette(), log_config=None)
        config.load()
        connection, transport = BoundedConnection(config, ServerState(), {}, _loop=loop), Unread(100)
        connection.connection_made(transport)
        connection.pause_writing()
        for waiting in (90, 89):
            transport.waiting = waiting
            delay, look = timers.pop()
            assert delay == BoundedConnection.unread_seconds
            look()
            assert not transport.aborted
        timers.pop()[1]()
        assert transport.aborted


@pytest.mark.parametrize(
    "end", [lambda connection: connection.resume_writing(), lambda connection: connection.connection_lost(None)]
)
def test_once_all_of_an_answer_is_taken_or_the_caller_gone_nothing_is_cut(
    end: Callable[[BoundedConnection], None],
) -> None:
    with closing(asyncio.new_event_loop()) as loop:
        config = uvicorn.Config(Starlette(), log_config=None)
        config.load()
        connection = BoundedConnection(config, ServerState(), {}, _loop=loop)
        connection.connection_made(Unread(100))
        connection.pause_writing()
        cut = connection._unread_timer
        end(connection)
        assert cut is not None
        assert cut.cancelled()


HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
UPGRADING = b"POST /body HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
OF_KNOWN_LENGTH = UPGRADING + b"Content-Length: %d\r\n\r\n%b" % (len(HIDDEN), HIDDEN)
IN_CHUNKS = UPGRADING + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)
PIECES: dict[str, Callable[[bytes], list[bytes]]] = {
    "in one piece": lambda request: [request],
    "the body by itself": lambda request: list(request.partition(b"\r\n\r\n")),
    "byte by byte": lambda request: [bytes([byte]) for byte in request],
    "beside the next": lambda request: [request[:-5], request[-5:] + request],
}


@pytest.mark.parametrize("request_", [OF_KNOWN_LENGTH, IN_CHUNKS], ids=["of known length", "in chunks"])
@pytest.mark.parametrize("pieces", PIECES.values(), ids=PIECES)
def test_a_request_for_another_protocol_keeps_its_body(request_: bytes, pieces: Callable[[bytes], list[bytes]]) -> None:
    """The parser leaves off at such a head: the body was lost, and what of it came later was read as a new request."""
    sent = pieces(request_)

    async def course() -> None:
        serving = Serving()
        serving.may_answer.set()
        async with serving.callers(1) as (caller,):
            for piece in sent:
                caller.writer.write(piece)
                await caller.writer.drain()
                await asyncio.sleep(0)
            for _ in range(b"".join(sent).count(UPGRADING)):
                assert await caller.answer() == HIDDEN
            caller.writer.write(WHOLE)
            assert await caller.answer() == b"done"

    asyncio.run(course())


@pytest.mark.parametrize("asking", [b"", b"Connection: Upgrade\r\nUpgrade: h2c\r\n"], ids=["by its method", "twice"])
def test_a_tunnel_with_a_body_is_refused(asking: bytes) -> None:
    """Read once more without the header it would ask for another protocol all the same, for ever."""

    async def course() -> None:
        async with Serving().callers(1) as (caller,):
            head = b"CONNECT /body HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n" % (asking, len(HIDDEN))
            caller.writer.write(head + HIDDEN)
            answers = await caller.refusal()
            assert answers.startswith(b"HTTP/1.1 400 Bad Request\r\n")
            assert answers.count(b"HTTP/1.1 ") == 1

    asyncio.run(course())


def test_a_request_for_another_protocol_without_a_body_is_answered_in_this_one() -> None:
    async def course() -> None:
        serving = Serving()
        serving.may_answer.set()
        async with serving.callers(1) as (caller,):
            for _ in range(2):
                caller.writer.write(WHOLE[:-2] + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
                assert await caller.answer() == b"done"

    asyncio.run(course())


@pytest.mark.parametrize("loop", LOOPS)
def test_whoever_sends_several_requests_at_once_and_leaves_is_worked_for_no_more(
    loop: LoopFactory, caplog: pytest.LogCaptureFixture
) -> None:
    async def course() -> None:
        serving = Serving()
        async with serving.callers(1) as (caller,):
            for number in (1, 2):
                caller.writer.write(WHOLE.replace(b"/", b"/left/%d" % number, 1))
            while not serving.state.tasks:
                await asyncio.sleep(0)
            caller.writer.close()
            async with asyncio.timeout(PATIENCE_S):
                while serving.state.tasks:
                    await asyncio.sleep(0.001)
        assert serving.left == ["/left/1"]

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(course())
    assert not caplog.records
