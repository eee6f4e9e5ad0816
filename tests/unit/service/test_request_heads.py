"""A connection without a whole request is closed in time, over real sockets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.server import ServerState

from ubert_service.request_heads import BoundedHeads

PATIENCE_S = 60.0
WHOLE = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


AT_ONCE, IN_A_WHILE = 0.01, 0.5
"""Seconds that a head may take. In the second a whole one surely arrives."""


class Caller:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def answer(self) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            await self._reader.readuntil(b"\r\n\r\n")
            return await self._reader.readexactly(len(b"done"))

    async def is_closed(self) -> bool:
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self._reader.read() == b""
        except ConnectionResetError:  # it was closed before all that was sent had been read
            return True


class Serving:
    """An app that answers once ``may_answer``, behind the protocol."""

    def __init__(self, head_seconds: float) -> None:
        class Heads(BoundedHeads):
            pass

        Heads.head_seconds = head_seconds
        self._protocol = Heads
        self.may_answer = asyncio.Event()

    @asynccontextmanager
    async def callers(self, number: int) -> AsyncIterator[list[Caller]]:
        async def answer(request: Request) -> Response:
            await self.may_answer.wait()
            return PlainTextResponse("done")

        # Idle between two requests for longer than any test, so that it is not that which closes a connection.
        config = uvicorn.Config(Starlette(routes=[Route("/", answer)]), log_config=None, timeout_keep_alive=600)
        config.load()
        state, loop = ServerState(), asyncio.get_running_loop()
        server = await loop.create_server(lambda: self._protocol(config, state, {}), "127.0.0.1", 0)
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
        async with Serving(AT_ONCE).callers(1) as (caller,):
            caller.writer.write(beginning)
            assert await caller.is_closed()

    asyncio.run(course())


@pytest.mark.parametrize("beginning", [b"GET / HTT", b"\r\n"])
def test_so_is_one_whose_second_head_does_not_end(beginning: bytes) -> None:
    async def course() -> None:
        serving = Serving(IN_A_WHILE)
        serving.may_answer.set()
        async with serving.callers(1) as (caller,):
            caller.writer.write(WHOLE)
            assert await caller.answer() == b"done"
            caller.writer.write(beginning)
            assert await caller.is_closed()

    asyncio.run(course())


def test_a_request_that_is_worked_on_and_a_connection_between_two_are_left_alone() -> None:
    async def course() -> None:
        serving = Serving(IN_A_WHILE)
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
