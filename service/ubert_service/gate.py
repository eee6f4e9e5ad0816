"""What a request must pass before anything is read or computed for it: its key, and the length of the queue."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ubert_model.errors import UbertError
from ubert_service.access import ApiKeys, needed_scope
from ubert_service.context import ServiceContext
from ubert_service.problems import error_response


class Gate:
    """Refuses whoever may not ask (401, 403), and everyone while the queue is full (429): under an overload, most of
    the work is in refusing, so a refusal must not cost the reading of a body. Addresses that are open to all (health,
    metrics, the page) always pass.
    """

    def __init__(self, app: ASGIApp, keys: ApiKeys | None) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["type"] == "http":
                self._pass(scope)
        except UbertError as error:
            await error_response(error, scope)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _pass(self, scope: Scope) -> None:
        needed = needed_scope(scope["method"], scope["path"])
        if needed is None:
            return
        if self._keys is not None:
            scope["state"]["caller"] = self._keys.authorise(Headers(scope=scope).get("Authorization"), needed)
        context: ServiceContext = scope["app"].state.context
        context.scheduler.refuse_if_full()
