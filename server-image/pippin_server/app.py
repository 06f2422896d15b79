"""The composition root: every part is made elsewhere and put together here, nothing is global."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from prometheus_client import CollectorRegistry
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp

from pippin_contract.adapters import TASKS
from pippin_contract.serverconfig import ServerConfig
from pippin_contract.wire import PICTURES_PATH
from pippin_edge import errors
from pippin_edge.access_log import AccessLog
from pippin_edge.asgi import App, ByPrefix, Receive, Scope, Send
from pippin_edge.authenticate import Authenticate
from pippin_edge.body_limit import BodyLimit
from pippin_edge.body_room import FORMS, BodyRoom
from pippin_edge.clock import Clock
from pippin_edge.request_id import RequestId

from .adapting import Adapting, Locate
from .engines.adapters import Adaptable
from .engines.base import Embedder, Host
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
    adapters,
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
from .stand import Alone, Books, House, Stand
from .telemetry import Answers

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
    """The app, and the model that it is about."""

    app: App
    stand: Stand

    @property
    def lifecycle(self) -> Lifecycle:
        return self.stand.lifecycle


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the app takes from its process. `verify` None: nobody is asked for a key; `locate`: how
    adapters come here that are loaded later; None: none are."""

    verify: Verify | None
    clock: Clock
    write_access_line: Callable[[bytes], object]
    locate: Locate | None = None


def create_app(
    settings: Settings,
    config: ServerConfig,
    engine: Anything,
    around: Surroundings,
) -> Server:
    """The whole server of one model but for its socket."""
    clock, verify = around.clock, around.verify
    stand = Stand.of(config, engine, Books.of(config, clock), clock)
    house, telemetry = Alone(stand), stand.books.telemetry
    routers = [
        *answering(stand, Shelf(clock.monotonic)),
        *_adapting(settings, stand, around),
        models.router(models.OneModel(stand, int(clock.wall()))),
        *_knobs(engine, stand.lifecycle, verify or nobody),
        *inspecting(house, telemetry.registry, settings, config, around),
    ]
    described_by = _Description(stand, verify)
    api = api_of([*routers, openapi.router(routers, described_by)])
    telemetry.registry.register(Familiar(lambda: [telemetry], clock.monotonic))
    app = behind_the_edge(api, settings, around, telemetry, house.figures)
    return Server(app, stand)


def inspecting(
    house: House,
    registry: CollectorRegistry,
    settings: Settings,
    config: ServerConfig,
    around: Surroundings,
) -> tuple[APIRouter, ...]:
    """Probes, figures, and the end."""
    clock, verify = around.clock, around.verify or nobody
    told = diagnostics.Diagnostics(house, Watch(clock.monotonic), clock)
    return (
        health.router(house, warmup=settings.warmup, clock=clock),
        metrics.router(house, registry),
        diagnostics.router(told, verify),
        admin.router(house, verify, drain_timeout=config.drain_timeout_seconds),
    )


def api_of(routers: Iterable[APIRouter]) -> FastAPI:
    api = _Api(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    for router in routers:
        api.include_router(router)
    return api


def behind_the_edge(
    api: App, settings: Settings, around: Surroundings, telemetry: Answers, figures: Figures
) -> App:
    """All that every request passes, whichever model it asks for."""
    app: App = BodyRoom(api, FORMS * settings.max_media_bytes)
    app = BodyLimit(app, settings.max_body_bytes, settings.max_media_bytes, settings.body_timeout)
    if around.verify is not None:
        app = ByPrefix(PICTURES_PATH, app, Authenticate(app, around.verify, OPEN_PATHS))
    app = errors.ErrorEnvelope(app)
    if settings.access_log:
        app = AccessLog(app, around.write_access_line, clock=around.clock)
    return RequestId(Measure(app, telemetry, figures, around.clock))


def _adapting(settings: Settings, stand: Stand, around: Surroundings) -> tuple[APIRouter, ...]:
    """Nothing where no sources are allowed, or where a model has no adapters."""
    engine, locate, sources = stand.engine, around.locate, settings.adapter_sources
    if stand.config.model.task not in TASKS or not sources or locate is None:
        return ()
    if not isinstance(engine, Adaptable):
        return ()
    adapting = Adapting(engine, stand.roster, locate, sources)
    desk = Desk(stand.config, stand.roster)
    return (adapters.router(desk, stand.kitchen, adapting, around.verify or nobody),)


def answering(stand: Stand, shelf: Shelf) -> tuple[APIRouter, ...]:
    """What the model is asked on."""
    engine, kitchen, desk = stand.engine, stand.kitchen, Desk(stand.config, stand.roster)
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
        served = images.router(desk, kitchen, engine, shelf), images.pictures(shelf)
    else:
        counter = Counter(stand.config, stand.roster, kitchen, engine)
        served = chat.router(counter), completions.router(counter)
    return *served, others.router(desk, [path for one in served for path in _paths(one)])


class _Description:
    """Made when somebody asks, since an engine that judges requests by itself is asked then."""

    def __init__(self, stand: Stand, verify: Verify | None) -> None:
        self._stand = stand
        self._verify = verify

    def __call__(self) -> openapi.Described:
        """Raises NotReady while nobody knows what the model can do."""
        if not isinstance(self._stand.engine, Echo):
            self._stand.kitchen.refuse_unless_ready()
        return openapi.Described(self._request, None if self._verify is None else OPEN_PATHS)

    def _request(self, path: str, schemas: dict[str, Any]) -> dict[str, Any] | None:
        engine = self._stand.engine
        if isinstance(engine, Host):
            known = engine.fields(path)
            return None if known is None else described.of_engine(known)
        honours: frozenset[str] = getattr(engine, "honours", frozenset())
        return described.request(path, honours, schemas)


def _paths(router: APIRouter) -> list[str]:
    return [route.path for route in router.routes if isinstance(route, Route)]


def _knobs(engine: Anything, lifecycle: Lifecycle, verify: Verify) -> tuple[APIRouter, ...]:
    return (echo.router(engine, lifecycle, verify),) if isinstance(engine, Echo) else ()


class _Api(FastAPI):
    """Routes only: errors rise to the ErrorEnvelope, which is the one that answers them."""

    def build_middleware_stack(self) -> ASGIApp:
        return _Reworded(AsyncExitStackMiddleware(self.router))


class _Reworded:
    """The framework's own refusals (no such path, wrong method) in our words. Its layer for such
    would pass every piece of every answer on by itself."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        except HTTPException as error:
            reworded = _reworded(scope, error)
            if reworded is None:
                raise
            raise reworded from error


def _reworded(scope: Scope, error: HTTPException) -> errors.ApiError | None:
    path = scope["path"][:256]
    if error.status_code == 404:
        return errors.NotFound(f"there is nothing at {path}: see /v1/models")
    if error.status_code == 405:
        allow = (error.headers or {}).get("Allow", "")
        return errors.MethodNotAllowed(
            f"{scope['method']} is not possible on {path}" + (f": use {allow}" if allow else ""),
            extra_headers=[(b"allow", allow.encode())] if allow else None,
        )
    return None


def nobody(token: str) -> object:
    raise errors.Unauthenticated("only callers on this machine may do this")
