"""Dependencies of routes: the headers of a request, a check that its body is JSON, and the context to work with."""

from typing import Annotated, Any

from fastapi import Depends, Header, Request
from fastapi.routing import APIRoute

from ubert_service.context import STALE_SECONDS, RequestContext, ServiceContext
from ubert_service.http.middleware import require_json, require_known_parameters, require_utf8
from ubert_service.read_version import READ_VERSION_PATTERN, ReadVersion
from ubert_service.schemas import READ_VERSION, REQUEST_TIMEOUT, RequestSeconds


def _answer_with(name: str, kind: str, description: str) -> dict[str, Any]:
    """What an answer with this header adds to its OpenAPI description."""
    return {"headers": {name: {"description": description, "schema": {"type": kind}}}}


WRITE_ANSWER = _answer_with(READ_VERSION, "string", "Send it with a request whose answer must show this write.")
RATING_ANSWER = _answer_with(
    STALE_SECONDS,
    "number",
    "Only while the state store is away: seconds since its data were last known to be current.",
)

RequestTimeout = Annotated[
    RequestSeconds | None,
    Header(
        alias=REQUEST_TIMEOUT,
        description="Seconds from the arrival of the request after which the caller no longer needs the answer.",
    ),
]
ReadVersionSeen = Annotated[
    str | None,
    Header(
        alias=READ_VERSION,
        pattern=READ_VERSION_PATTERN,
        description=f"The `{READ_VERSION}` of a write's answer: any replica's answer to this request shows that write.",
    ),
]


# All async, though few wait: FastAPI would run each plain function in a thread, at 0.2 ms a call.
async def _service_context(request: Request) -> ServiceContext:
    context: ServiceContext = request.app.state.context
    return context


async def _request_context(request: Request, seconds: RequestTimeout = None) -> RequestContext:
    del seconds  # only validated here: the deadline bounds the arrival of the body, too
    service: ServiceContext = request.app.state.context
    deadline: float = request.state.deadline
    return RequestContext(service=service, request=request, roles=service.bundles.roles, deadline=deadline)


async def _rating_context(
    request: Request, seconds: RequestTimeout = None, version: ReadVersionSeen = None
) -> RequestContext:
    context = await _request_context(request, seconds)
    residents = context.served.residents
    if version is not None:
        written = ReadVersion.parse(version)
        if not residents.reflects(written):  # else the request would wait in the queue twice
            await context.work(lambda: residents.catch_up(written))
    return context


async def _json_body(request: Request) -> None:
    require_json(request.headers)


async def _plain_address(request: Request) -> None:
    require_utf8(request)
    route: APIRoute = request.scope["route"]
    require_known_parameters(request, [parameter.alias for parameter in route.dependant.query_params])


ServiceDependency = Annotated[ServiceContext, Depends(_service_context)]
Context = Annotated[RequestContext, Depends(_request_context)]
RatingContext = Annotated[RequestContext, Depends(_rating_context)]
"""For the routes that rate, each a ``RatingRoute``: callers read their own writes, and while the store is away the
answer reports the age of its data.
"""
JSON_BODY = Depends(_json_body)
PLAIN_ADDRESS = Depends(_plain_address)
"""The path and the query are UTF-8, and no parameter is unknown. For all routes but those that any balancer or monitor
calls in its own way; a ``RatingRoute``, whose path is fixed, knows no parameters.
"""
