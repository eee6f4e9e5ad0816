"""``ubert-serve``: serve ratings from a bundle and a state store."""

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ubert_model.bundle import Manifest
from ubert_model.errors import ConfigError, UbertError
from ubert_model.states import open_existing_store
from ubert_service.app import create_app
from ubert_service.commands.command_line import new_app, run_command
from ubert_service.commands.flags import BundleFlag, CodecFlag, DeviceFlag, RuntimeFlag, StoreFlag
from ubert_service.http.server import serve
from ubert_service.observability.logs import configure_logs
from ubert_service.observability.tracing import Tracing, Untraced
from ubert_service.serving.opened import OpenedBundle
from ubert_service.settings import LogFormat, LogLevel, Settings, read_toml

_DEFAULTS = Settings.model_construct()

_log = logging.getLogger(__name__)

app = new_app()


def _apply_file(context: typer.Context, path: Path | None) -> Path | None:
    if path is not None:
        context.default_map = read_toml(path)
    return path


@app.command(help="Serve ratings over HTTP. Flags override environment variables, which override --config.")
def run(
    bundle: BundleFlag,
    store: StoreFlag,
    codec: CodecFlag = _DEFAULTS.codec,
    host: Annotated[str, typer.Option(envvar="UBERT_HOST", help="Address to listen on.")] = _DEFAULTS.host,
    port: Annotated[
        int, typer.Option(envvar="UBERT_PORT", min=0, max=65535, help="0: any free port; the log names it.")
    ] = _DEFAULTS.port,
    device: DeviceFlag = _DEFAULTS.device,
    runtime: RuntimeFlag = _DEFAULTS.runtime,
    threads: Annotated[
        int, typer.Option(envvar="UBERT_THREADS", min=0, help="Threads of one scoring call; 0: one per core.")
    ] = _DEFAULTS.threads,
    concurrency: Annotated[
        int, typer.Option(envvar="UBERT_CONCURRENCY", min=1, help="Threads that score, each one batch at a time.")
    ] = _DEFAULTS.concurrency,
    queue_requests: Annotated[
        int, typer.Option(envvar="UBERT_QUEUE_REQUESTS", min=1, help="Requests that may wait; more get 429.")
    ] = _DEFAULTS.queue_requests,
    queue_tokens: Annotated[
        int,
        typer.Option(
            envvar="UBERT_QUEUE_TOKENS", min=1, help="Tokens that may wait; more get 429, unless nothing else waits."
        ),
    ] = _DEFAULTS.queue_tokens,
    queue_wait_ms: Annotated[
        float,
        typer.Option(
            envvar="UBERT_QUEUE_WAIT_MS", min=0, help="A request expected to wait longer gets 429; 0: no limit."
        ),
    ] = _DEFAULTS.queue_wait_ms,
    overload_wait_ms: Annotated[
        float,
        typer.Option(envvar="UBERT_OVERLOAD_WAIT_MS", min=0, help="The same limit during an overload."),
    ] = _DEFAULTS.overload_wait_ms,
    batch_tokens: Annotated[
        int, typer.Option(envvar="UBERT_BATCH_TOKENS", min=1, help="Most tokens in one batch of requests.")
    ] = _DEFAULTS.batch_tokens,
    batch_wait_ms: Annotated[
        float, typer.Option(envvar="UBERT_BATCH_WAIT_MS", min=0, help="How long a free thread waits to fill a batch.")
    ] = _DEFAULTS.batch_wait_ms,
    request_timeout: Annotated[
        float, typer.Option(envvar="UBERT_REQUEST_TIMEOUT", help="Seconds; a request's X-Request-Timeout overrides it.")
    ] = _DEFAULTS.request_timeout,
    drain_seconds: Annotated[
        float, typer.Option(envvar="UBERT_DRAIN_SECONDS", min=0, help="On SIGTERM, longest wait for callers to leave.")
    ] = _DEFAULTS.drain_seconds,
    api_keys: Annotated[
        Path | None,
        typer.Option(
            envvar="UBERT_API_KEYS",
            help="TOML file of keys from `ubert-serve-key`. It is reloaded when it changes: removing a key's table "
            "revokes the key.",
        ),
    ] = None,
    allowed_hosts: Annotated[
        list[str],
        typer.Option(
            envvar="UBERT_ALLOWED_HOSTS",
            help="Without API keys: a name by which to be called, beside localhost and addresses; may be repeated (in "
            "the environment: separated by spaces). On loopback no other is answered.",
        ),
    ] = [],  # noqa: B006  # Typer copies it
    resident_bytes: Annotated[
        int,
        typer.Option(
            envvar="UBERT_RESIDENT_BYTES", min=0, help="Memory to cache reviews, half of it for a shadow; 0: none."
        ),
    ] = _DEFAULTS.resident_bytes,
    resident_lag: Annotated[
        float,
        typer.Option(
            envvar="UBERT_RESIDENT_LAG",
            min=0,
            help="Seconds within which a write through another process is seen; 0: ask the store each time.",
        ),
    ] = _DEFAULTS.resident_lag,
    warm_seconds: Annotated[
        float,
        typer.Option(envvar="UBERT_WARM_SECONDS", min=0, help="Longest time to warm the cache before being ready."),
    ] = _DEFAULTS.warm_seconds,
    shadow_bundle: Annotated[
        Path | None,
        typer.Option(envvar="UBERT_SHADOW_BUNDLE", help="A bundle to compare with; SIGHUP or a call promotes it."),
    ] = None,
    shadow_share: Annotated[
        float,
        typer.Option(
            envvar="UBERT_SHADOW_SHARE",
            min=0,
            max=1,
            help="Share of rating requests that the shadow rates as well, 32 pairs of each at most.",
        ),
    ] = _DEFAULTS.shadow_share,
    texts: Annotated[
        bool, typer.Option("--texts", envvar="UBERT_TEXTS", help="Store and show the texts of reviews (/explain).")
    ] = _DEFAULTS.texts,
    max_body_bytes: Annotated[
        int, typer.Option(envvar="UBERT_MAX_BODY_BYTES", min=1, help="Larger request bodies are refused.")
    ] = _DEFAULTS.max_body_bytes,
    log_level: Annotated[LogLevel, typer.Option(envvar="UBERT_LOG_LEVEL", help="How much to log.")] = (
        _DEFAULTS.log_level
    ),
    log_format: Annotated[LogFormat, typer.Option(envvar="UBERT_LOG_FORMAT", help="json: one object per line.")] = (
        _DEFAULTS.log_format
    ),
    traces: Annotated[
        str | None, typer.Option(envvar="UBERT_TRACES", help="Send traces to this OTLP address; needs the extra otel.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            # Not UBERT_CONFIG: that names the file of `ubert`, which has a table per command.
            envvar="UBERT_SERVE_CONFIG",
            callback=_apply_file,
            is_eager=True,
            help="TOML file with these settings.",
        ),
    ] = None,
) -> None:
    given = dict(locals())  # no other variable yet: the settings, under their own names
    del given["config"]  # applied by its callback
    settings = Settings.of(**given)
    configure_logs(settings)
    with closing(open_existing_store(settings.store)) as opened_store, opened_tracing(settings) as tracing:
        live, shadow = open_bundles(settings)
        serve(create_app(settings, live, opened_store, tracing, shadow=shadow), settings)


def open_bundles(settings: Settings) -> tuple[OpenedBundle, OpenedBundle | None]:
    """The live bundle, and its shadow if there is one; then each caches half of what the process may cache.

    A shadow that cannot be used is left out, with an error in the log: it must not keep the live bundle from being
    served. Raises as :meth:`OpenedBundle.open` does, of the live bundle.
    """
    if settings.shadow_bundle is None:
        return OpenedBundle.open(settings), None
    of_each = settings.model_copy(update={"resident_bytes": settings.resident_bytes // 2})
    live = OpenedBundle.open(of_each)
    try:
        shadow = OpenedBundle.open(of_each.model_copy(update={"bundle": settings.shadow_bundle}))
        _require_comparable(live.bundle.manifest, shadow.bundle.manifest)
    except Exception as error:  # any error at all
        message = "--bundle is served alone, because --shadow-bundle %s cannot be used: %s"
        unforeseen = None if isinstance(error, UbertError) else error
        _log.error(message, settings.shadow_bundle, error, exc_info=unforeseen)
        return replace(live, settings=settings), None  # only what torch keeps on a GPU is still bounded by the half
    return live, shadow


def _require_comparable(live: Manifest, shadow: Manifest) -> None:
    """Raise ``ConfigError`` if the shadow is the same bundle or has another scale."""
    if shadow.bundle_id == live.bundle_id:
        raise ConfigError(f"it is the same bundle as --bundle ({live.bundle_id}); give another, or leave it out")
    of_live, of_shadow = live.config.scale, shadow.config.scale
    if of_live != of_shadow:
        raise ConfigError(
            f"it has the rating scale {of_shadow}, --bundle {of_live}, so they cannot share reviews; train both on one "
            "scale"
        )


@contextmanager
def opened_tracing(settings: Settings) -> Iterator[Tracing]:
    """The tracing of the settings. Raises ``ConfigError`` that omits the address, which may hold a password."""
    if settings.traces is None:
        yield Untraced()
        return
    try:
        from ubert_service.observability import otel  # noqa: PLC0415  # only needed with --traces
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("ubert_"):
            raise
        raise ConfigError(f"traces: {error}; install u-bert[otel]") from error
    with closing(otel.OpenTelemetryTracing(otel.sending_to(settings.traces))) as tracing:
        yield tracing


def main() -> None:
    """Run the command line; :mod:`ubert_service.entry` has the entry points."""
    run_command(app, "ubert-serve")
