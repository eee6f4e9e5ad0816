"""The application factory; importing this module has no side effects.

A request passes ``http.connections``, the layers that :func:`create_app` adds, the last one first, and its route. A
route asks its ``RequestContext`` for work, which the ``Scheduler`` gives to a thread, and that to the parts of the
``ServedBundle`` that was live when the request arrived. Every error becomes an answer in ``http.problems``.
"""

import math
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute
from starlette.types import Lifespan

from ubert_model.states import NamespaceLeases, StateStore
from ubert_service.access.key_file import KeyFile
from ubert_service.context import ServiceContext
from ubert_service.http import problems
from ubert_service.http.gate import HostGate, KeyGate, QueueGate
from ubert_service.http.middleware import BodyLimit, RequestFrame
from ubert_service.observability.metrics import PrometheusMetrics
from ubert_service.observability.tracing import Tracing, Untraced
from ubert_service.routes import (
    admin,
    candidate_sets,
    console,
    entities,
    explain,
    health,
    predict,
    rank,
    reviews,
)
from ubert_service.serving.bundles import Bundles
from ubert_service.serving.opened import OpenedBundle
from ubert_service.serving.served import ServedBundle
from ubert_service.serving.shadowing import Shadowing
from ubert_service.settings import Settings
from ubert_service.work.admission import WaitingLimits
from ubert_service.work.scheduler import BatchLimits, Scheduler
from ubert_service.work.threads import started_pool

_CHECK_THREADS = 4
_ROUTES = (predict, rank, explain, reviews, candidate_sets, entities, health, admin, console)
_UNTRACED = Untraced()


def create_app(
    settings: Settings,
    live: OpenedBundle,
    store: StateStore,
    tracing: Tracing = _UNTRACED,
    *,
    shadow: OpenedBundle | None = None,
) -> FastAPI:
    """The service of a bundle and, optionally, its shadow, over a store, which is not asked here; it may be away.

    Raises ``ConfigError`` if the file of API keys cannot be used, and ``BundleError`` as ``ServedBundle`` does.
    """
    metrics = PrometheusMetrics()
    served = ServedBundle(live, store, metrics)
    bundles = Bundles(served, None if shadow is None else ServedBundle(shadow, store, metrics))
    keys = None if settings.api_keys is None else KeyFile(settings.api_keys, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        shadowing = Shadowing(share=settings.shadow_share, telemetry=metrics)
        checking = started_pool(_CHECK_THREADS, "ubert-check")
        scheduler = Scheduler(
            waiting=_waiting_limits(settings),
            batches=BatchLimits(tokens=settings.batch_tokens, wait=settings.batch_wait_ms / 1000),
            workers=settings.concurrency,
            telemetry=metrics,
        )
        app.state.context = ServiceContext(
            settings=settings,
            bundles=bundles,
            shadowing=shadowing,
            metrics=metrics,
            scheduler=scheduler,
            checking=checking,
            tracing=tracing,
        )
        app.openapi()  # kept from now on; making it for the first caller would stop the event loop for 0.3 s
        loaded = bundles.roles.loaded
        with ExitStack() as background:
            if keys is not None:
                background.enter_context(keys)
            background.enter_context(NamespaceLeases(served.store, [bundle.namespace.version for bundle in loaded]))
            for bundle in loaded:
                bundle.directory.sort_identifiers()
                background.enter_context(bundle.device_check)
                background.enter_context(bundle.keeper)
            yield
            await scheduler.close()
            shadowing.close()
            checking.shutdown(wait=False)  # no caller waits for the checks that still run

    app = described_app(lifespan)
    problems.install(app)
    # Each wraps those added before it.
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes, seconds=settings.request_timeout)
    if keys is not None:
        app.add_middleware(KeyGate, keys=keys, routes=_routes())
    elif settings.checks_hosts:
        app.add_middleware(HostGate, names=settings.allowed_hosts, routes=_routes())
    app.add_middleware(RequestFrame)
    # Outermost, around even the framework's own wrappers: each layer adds microseconds to a refusal.
    app.middleware_stack = QueueGate(app.build_middleware_stack(), keys)
    return app


def _waiting_limits(settings: Settings) -> WaitingLimits:
    bounded = settings.queue_wait_ms > 0
    return WaitingLimits(
        requests=settings.queue_requests,
        tokens=settings.queue_tokens,
        seconds=settings.queue_wait_ms / 1000 if bounded else math.inf,
        overload_seconds=settings.overload_wait_ms / 1000 if bounded else math.inf,
    )


def described_app(lifespan: Lifespan[FastAPI] | None = None) -> FastAPI:
    """All routes and their OpenAPI description; without a lifespan nothing serves them."""
    # No /docs: that page would load scripts from another host.
    app = _DocumentedApp(
        title="U-BERT",
        summary="Ratings predicted from cached review states.",
        version=_version(),
        lifespan=lifespan,
        # The names of a generated client's functions; the default adds path and method: `predict_predict_post`.
        generate_unique_id_function=lambda route: route.name,
        # Its spans and logs would hold paths and rejected values, and so identifiers and review texts.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        docs_url=None,
        redoc_url=None,
        # A redirect would name the scheme and host of the last hop: behind a TLS proxy, the key would follow in clear.
        redirect_slashes=False,
    )
    for routes in _ROUTES:
        app.include_router(routes.router)
    return app


def _routes() -> list[BaseRoute]:
    return [route for routes in _ROUTES for route in routes.router.routes]


class _DocumentedApp(FastAPI):
    """An app whose OpenAPI description includes the schema of problems, which no route declares as its model."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            schema = get_openapi(title=self.title, version=self.version, summary=self.summary, routes=self.routes)
            for operation in (operation for path in schema["paths"].values() for operation in path.values()):
                for parameter in operation.get("parameters", []):
                    _leave_out_null(parameter["schema"])
            schema["components"]["schemas"] |= problems.problem_schemas()
            schema["components"]["securitySchemes"] = {"api_key": {"type": "http", "scheme": "bearer"}}
            schema["security"] = [{}, {"api_key": []}]  # a service may run without keys
            self.openapi_schema = schema
        return self.openapi_schema


def _leave_out_null(schema: dict[str, Any]) -> None:
    """A header or query parameter is left out, never null; clients generated from "number or null" fail to send one."""
    given = [kind for kind in schema.pop("anyOf", []) if kind != {"type": "null"}]
    schema.update(*given)


def _version() -> str:
    try:
        return version("u-bert")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "0+source"
