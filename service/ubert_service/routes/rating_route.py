"""The busiest kind of route, which bypasses FastAPI's dependency resolver."""

import json
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from ubert_service.http.middleware import require_json, require_known_parameters

_ABSENT = object()
_IGNORED_OPTIONS: Mapping[str, object] = {
    "status_code": None,
    "response_model_include": None,
    "response_model_exclude": None,
    "response_model_by_alias": True,
    "response_model_exclude_unset": False,
    "response_model_exclude_defaults": False,
    "response_model_exclude_none": False,
}
"""Options of FastAPI's own routes that would have no effect, with their defaults."""
_MISSING = {"type": "missing", "loc": ("body",), "msg": "Field required", "input": None}


class RatingRoute(APIRoute):
    """A route with a JSON body and exactly one dependency, which may read optional headers and the request. Its
    endpoint returns a ``Response``.

    FastAPI documents it, and FastAPI's own fields validate its body and headers, so within these limits it behaves like
    any other route; options for responses raise ``TypeError``.
    Only the resolver is bypassed: it takes a quarter of the HTTP cost of a request (README, *Decisions*).

    The dependency's ``answer_headers`` are added to the answer. They are asked for both before the endpoint runs and
    after: it may itself find out that the store is away, or have read before the store came back.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        ignored = [name for name, default in _IGNORED_OPTIONS.items() if getattr(self, name) != default]
        if ignored:
            raise TypeError(
                f"{self.path}: a RatingRoute ignores {', '.join(ignored)}; leave it out, or use an APIRoute"
            )
        (dependency,) = self.dependant.dependencies
        provide, body = dependency.call, self.body_field
        assert provide is not None
        assert dependency.name is not None
        assert body is not None
        endpoint, context_name = self.endpoint, dependency.name

        async def handle(request: Request) -> Response:
            require_json(request.headers)
            if request.scope["query_string"]:
                require_known_parameters(request, ())
            errors: list[Any] = []
            headers: dict[str, Any] = {}
            for field in dependency.header_params:
                if (value := request.headers.get(field.alias)) is not None:
                    headers[field.name], found = field.validate(value, {}, loc=("header", field.alias))
                    errors += found
            document = await _read_json(request)
            parsed, found = (None, [_MISSING]) if document is _ABSENT else body.validate(document, {}, loc=("body",))
            errors += found
            if errors:
                raise RequestValidationError(errors, body=document)
            context = await provide(request=request, **headers)
            early = context.answer_headers()
            answer: Response = await endpoint(**{body.name: parsed, context_name: context})
            answer.headers.update(early | context.answer_headers())
            return answer

        return handle


async def _read_json(request: Request) -> Any:
    """The body as JSON, or ``_ABSENT`` if it is empty.

    Raises ``RequestValidationError`` or ``HTTPException``, as FastAPI does, for a body that is not JSON.
    """
    try:
        content = await request.body()
        if content:
            return json.loads(content)
    except json.JSONDecodeError as error:
        invalid = {"type": "json_invalid", "loc": ("body", error.pos), "ctx": {"error": error.msg}}
        raise RequestValidationError([{**invalid, "msg": "JSON decode error", "input": {}}]) from error
    except (ClientDisconnect, ValueError, RecursionError) as error:
        raise HTTPException(400, "There was an error parsing the body") from error
    return _ABSENT
