"""A ``RatingRoute`` answers every request as FastAPI's own route does."""

from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, Request, Response
from fastapi.testclient import TestClient
from pydantic import BaseModel

from ubert_service.http.problems import install
from ubert_service.routes.rating_route import RatingRoute


class _Question(BaseModel):
    text: str
    number: int = 0


class _Answer(BaseModel):
    text: str
    number: int
    limit: float | None = None
    remark: str = "none"


class _Context:
    def __init__(self, path: str, limit: float | None) -> None:
        self._path = path
        self._asked = 0
        self.limit = limit

    def answer_headers(self) -> dict[str, str]:
        self._asked += 1
        return {"X-Path": self._path, f"X-Asked-{self._asked}": "yes"}


async def _context(
    request: Request, seconds: Annotated[float | None, Header(alias="X-Limit", gt=0)] = None
) -> _Context:
    return _Context(request.url.path, seconds)


_Given = Annotated[_Context, Depends(_context)]


def _client(route: type | None) -> TestClient:
    router = APIRouter() if route is None else APIRouter(route_class=route)

    @router.post("/ask", response_model=_Answer)
    async def ask(question: _Question, context: _Given) -> Response:
        answer = _Answer(text=question.text, number=question.number, limit=context.limit)
        return Response(answer.model_dump_json(), media_type="application/json")

    @router.post("/raw", response_model=_Answer)
    async def raw(question: _Question, context: _Given) -> Response:
        text = f"{question.text} {context.limit}"
        return Response(text, status_code=202, headers={"X-Own": "yes"}, media_type="text/plain")

    app = FastAPI()
    install(app)
    app.include_router(router)

    @app.middleware("http")
    async def with_request_id(request: Request, call: Any) -> Any:
        request.scope.setdefault("state", {})["request_id"] = "r"
        return await call(request)

    return TestClient(app)


@pytest.fixture(scope="module")
def clients() -> Iterator[tuple[TestClient, TestClient]]:
    with _client(None) as theirs, _client(RatingRoute) as ours:
        yield theirs, ours


@pytest.mark.parametrize(
    "body",
    [
        b'{"text": "a", "number": 3}',
        b'{"text": "a", "further": 1}',
        '{"text": "ä\\u00e4"}'.encode("utf-16"),
        b'{"text": "a", "text": "b"}',
        b'{"text": 1, "number": "x"}',
        b'{"text": "a", "number": NaN}',
        b"[]",
        b"null",
        b"",
        b"{",
        b'{"text": "a"} x',
        b"\xff\xfe\xff",
        b"[" * 100_000,
        b'{"text": "a", "number": ' + b"9" * 5_000 + b"}",
    ],
)
@pytest.mark.parametrize("path", ["/ask", "/raw"])
@pytest.mark.parametrize("limit", [None, "2.5", "0", "x", ""])
def test_any_request_is_answered_as_by_fastapis_own_route(
    clients: tuple[TestClient, TestClient], body: bytes, path: str, limit: str | None
) -> None:
    headers = {"Content-Type": "application/json"} | ({} if limit is None else {"X-Limit": limit})
    theirs, ours = (client.post(path, content=body, headers=headers) for client in clients)
    assert ours.status_code == theirs.status_code
    # Asked for before and after the endpoint ran.
    of_context = {"x-path": path, "x-asked-1": "yes", "x-asked-2": "yes"} if theirs.is_success else {}
    assert dict(ours.headers) == dict(theirs.headers) | of_context
    if theirs.status_code == 422:
        assert _errors(ours) == _errors(theirs)
    else:
        assert ours.content == theirs.content


def test_a_body_of_another_content_type_is_refused_before_it_is_parsed(clients: tuple[TestClient, TestClient]) -> None:
    answer = clients[1].post("/ask", content=b"{", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415
    assert answer.json()["type"] == "urn:u-bert:problem:unsupported-media-type"


def test_its_openapi_description_equals_that_of_fastapis_own_route() -> None:
    described = [_client(route).get("/openapi.json").json() for route in (None, RatingRoute)]
    assert described[0] == described[1]


def _errors(answer: Any) -> set[tuple[str, str]]:
    return {(error["pointer"], error["message"]) for error in answer.json()["errors"]}


def test_an_option_that_would_have_no_effect_is_refused_when_the_route_is_declared() -> None:
    router = APIRouter(route_class=RatingRoute)

    async def ask(question: _Question, context: _Given) -> _Answer:
        raise NotImplementedError

    with pytest.raises(TypeError, match=r"/ask: a RatingRoute ignores status_code, response_model_exclude_none"):
        router.post("/ask", status_code=201, response_model_exclude_none=True)(ask)
