"""The composition root: every part is made elsewhere and put together here, nothing is global."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from fastapi import APIRouter, FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from prometheus_client import CollectorRegistry
from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp

from pippin_contract.serverconfig import ServerConfig
from pippin_contract.wire import PICTURES_PATH
from pippin_edge import errors
from pippin_edge.access_log import AccessLog
from pippin_edge.asgi import App, ByPrefix
from pippin_edge.authenticate import Authenticate
from pippin_edge.body_limit import BodyLimit
from pippin_edge.body_room import FORMS, BodyRoom
from pippin_edge.clock import Clock
from pippin_edge.request_id import RequestId

from .admission import Admission
from .answering import Kitchen
from .engines.base import Embedder, Host, Strain
from .engines.echo import Echo
from .engines.media import Painter, Transcriber
from .engines.registry import Anything
from .familiar import Familiar
from .figures import Figures
from .hardware.watch import Watch
from .lifecycle import Lifecycle
from .measure import Measure
from .openai import described
from .routes import (
    admin,
    chat,
    completions,
    diagnostics,
    echo,
    embeddings,
    health,
    hosted,
    images,
    metrics,
    models,
    openapi,
    others,
    transcriptions,
)
from .routes.reading import Counter, Desk
from .settings import Settings
from .shelf import Shelf
from .telemetry import CacheUse, Kept, Telemetry

#: No key is asked for here: probes and figures. Those below /internal ask by themselves.
OPEN_PATHS = frozenset(
    {
        "/health",
        "/ready",
        "/livez",
        "/status",
        "/metrics",
        "/v1/metrics",
        "/internal/drain",
        "/internal/diagnostics",
        "/internal/echo",
        openapi.PATH,
    }
)

Verify = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Server:
    """The app, and what its process steers it by."""

    app: App
    lifecycle: Lifecycle
    admission: Admission


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the app takes from its process. `verify` None: nobody is asked for a key."""

    verify: Verify | None
    clock: Clock
    write_access_line: Callable[[bytes], object]


def create_app(
    settings: Settings,
    config: ServerConfig,
    engine: Anything,
    around: Surroundings,
) -> Server:
    """The whole server but for its socket."""
    clock, verify = around.clock, around.verify
    admission = Admission(
        max_concurrency=config.max_concurrency,
        max_queue=config.max_queue,
        queue_timeout=config.queue_timeout_seconds,
        clock=clock.monotonic,
    )
    lifecycle = Lifecycle(
        engine=engine,
        admission=admission,
        stall_seconds=config.liveness_stall_seconds,
        clock=clock.monotonic,
    )
    telemetry = Telemetry(CollectorRegistry(), config.served_name, engine.name)
    figures = Figures(clock.monotonic)
    telemetry.cache_use = lambda: _cache_use(engine)
    telemetry.strain = lambda: _strain(engine)
    kitchen = Kitchen(admission, lifecycle, telemetry, clock)
    api = _Api(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    routers = [
        *_answering(config, engine, kitchen),
        models.router(config, lifecycle, int(clock.wall())),
        health.router(config, lifecycle, warmup=settings.warmup, clock=clock),
        metrics.router(admission, lifecycle, telemetry),
        diagnostics.router(
            diagnostics.Diagnostics(config, lifecycle, figures, Watch(clock.monotonic), clock),
            verify or _nobody,
        ),
        *_knobs(engine, lifecycle, verify or _nobody),
        admin.router(admission, verify or _nobody, drain_timeout=config.drain_timeout_seconds),
    ]
    routers.append(openapi.router(routers, lambda: _described(engine, kitchen, verify)))
    for router in routers:
        api.include_router(router)
    app: App = BodyRoom(api, FORMS * settings.max_media_bytes)
    app = BodyLimit(app, settings.max_body_bytes, settings.max_media_bytes, settings.body_timeout)
    if verify is not None:
        app = ByPrefix(PICTURES_PATH, app, Authenticate(app, verify, OPEN_PATHS))
    app = errors.ErrorEnvelope(app)
    if settings.access_log:
        app = AccessLog(app, around.write_access_line, clock=clock)
    telemetry.registry.register(Familiar(telemetry, clock.monotonic))
    app = RequestId(Measure(app, telemetry, figures, clock))
    return Server(app, lifecycle, admission)


def _strain(engine: Anything) -> tuple[bool, int]:
    found = engine.activity().strain or Strain()
    return found.degraded, found.times


def _cache_use(engine: Anything) -> CacheUse:
    seen = engine.activity()
    if isinstance(engine, Host):
        return CacheUse(seen.cache_hits, seen.cache_misses, kept=None)
    kept, state = Kept(), seen.cache
    if state is not None:
        kept = Kept(state.reason is None, state.bytes, state.capacity, state.evicted, state.drops)
    return CacheUse(seen.cache_hits, seen.cache_misses, kept)


def _answering(config: ServerConfig, engine: Anything, kitchen: Kitchen) -> tuple[APIRouter, ...]:
    desk = Desk(config)
    served: tuple[APIRouter, ...]
    if isinstance(engine, Host):
        engine.meter = kitchen.telemetry
        kitchen.telemetry.add(engine.metrics)
        served = (hosted.router(desk, kitchen, engine),)
    elif isinstance(engine, Embedder):
        engine.batched = kitchen.telemetry.embedding_batch.observe
        served = (embeddings.router(desk, kitchen, engine),)
    elif isinstance(engine, Transcriber):
        served = (transcriptions.router(desk, kitchen, engine),)
    elif isinstance(engine, Painter):
        shelf = Shelf(kitchen.clock.monotonic)
        served = (images.router(desk, kitchen, engine, shelf),)
    else:
        counter = Counter(config, kitchen, engine)
        served = chat.router(counter), completions.router(counter)
    return *served, others.router(desk, [path for one in served for path in _paths(one)])


def _described(engine: Anything, kitchen: Kitchen, verify: Verify | None) -> openapi.Described:
    """Raises NotReady while an engine that judges requests by itself is not there to be asked."""
    if isinstance(engine, Host):
        kitchen.refuse_unless_ready()

    def request(path: str, schemas: dict[str, Any]) -> dict[str, Any] | None:
        if isinstance(engine, Host):
            known = engine.fields(path)
            return None if known is None else described.of_engine(known)
        honours: frozenset[str] = getattr(engine, "honours", frozenset())
        return described.request(path, honours, schemas)

    return openapi.Described(request, None if verify is None else OPEN_PATHS)


def _paths(router: APIRouter) -> list[str]:
    return [route.path for route in router.routes if isinstance(route, Route)]


def _knobs(engine: Anything, lifecycle: Lifecycle, verify: Verify) -> tuple[APIRouter, ...]:
    return (echo.router(engine, lifecycle, verify),) if isinstance(engine, Echo) else ()


class _Api(FastAPI):
    """Routes only: errors rise to the ErrorEnvelope, which is the one that answers them."""

    def build_middleware_stack(self) -> ASGIApp:
        handlers = {HTTPException: _raise}
        return ExceptionMiddleware(AsyncExitStackMiddleware(self.router), handlers=handlers)


async def _raise(request: Request, error: Exception) -> NoReturn:
    """The framework's own refusals (no such path, wrong method) in our words."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    path = request.url.path[:256]
    if status == 404:
        raise errors.NotFound(f"there is nothing at {path}: see /v1/models")
    if status == 405:
        allow = (error.headers or {}).get("Allow", "") if isinstance(error, HTTPException) else ""
        raise errors.MethodNotAllowed(
            f"{request.method} is not possible on {path}" + (f": use {allow}" if allow else ""),
            extra_headers=[(b"allow", allow.encode())] if allow else None,
        )
    raise error


def _nobody(token: str) -> object:
    raise errors.Unauthenticated("only callers on this machine may do this")
