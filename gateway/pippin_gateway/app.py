"""The gateway as one ASGI app: edge around a table of paths. Wires, decides nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from pippin_contract.gatewayconfig import GatewayConfig
from pippin_contract.wire import ADMIN_PATH, PICTURES_PATH
from pippin_edge import errors
from pippin_edge.access_log import QUIET_PATHS, AccessLog
from pippin_edge.asgi import App, ByPrefix, Receive, Scope, Send
from pippin_edge.authenticate import Authenticate
from pippin_edge.body_limit import READ_SECONDS, BodyLimit
from pippin_edge.body_room import FORMS, BodyRoom
from pippin_edge.clock import SYSTEM, Clock
from pippin_edge.metrics import endpoint
from pippin_edge.request_id import RequestId

from . import forms
from .admin import Admin, AdminToken
from .attempt import Deps, Tokens
from .cache import ResponseCache
from .catalog.credentials import ProviderKeys
from .catalog.model import ApiKey
from .catalog.store import CatalogStore
from .demand import Demand
from .explain import Requests
from .health import EXPIRED, Health
from .ledger.ledger import Ledger
from .limiting.admission import Admission
from .limiting.estimate import Estimator
from .limiting.shared import Store
from .listing import PATH as MODELS_PATH
from .listing import Listing
from .pictures import Pictures
from .proxy import Proxy
from .routing.balance import Balance
from .routing.timeouts import Budget
from .status import Status
from .telemetry import Telemetry
from .tracing.exporter import Exporter
from .upstream.client import Client
from .upstream.guard import Ticker
from .upstream.outside import Outside
from .upstream.pool import Pool
from .waiting import Waiting

#: Paths whose body names a model, and that go to its replicas.
PROXIED = forms.PATHS | {
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/images/generations",
}
PUBLIC = frozenset({"/health", "/ready", "/livez", "/status", "/metrics"})


@dataclass(frozen=True, slots=True)
class Parts:
    """What the program made before the app, and what lives as long."""

    store: CatalogStore
    pool: Pool
    balance: Balance
    tokens: Tokens
    #: What providers outside know us by, and how they are reached.
    provider_keys: ProviderKeys
    outside: Outside
    telemetry: Telemetry
    #: Where limits are counted, and what keys have used.
    limits: Store
    ledger: Ledger
    cache: ResponseCache
    waiting: Waiting
    #: Where traces go, if anywhere.
    exporter: Exporter | None
    admin: AdminToken
    #: Whether there is a key to sign with.
    can_sign: Callable[[], bool]
    write_log: Callable[[bytes], object] | None
    #: Of this gateway among others, for people.
    name: str = ""
    clock: Clock = SYSTEM
    body_read_seconds: float = READ_SECONDS


@dataclass(frozen=True, slots=True)
class Gateway:
    """The app, and the switch that the end of the process turns."""

    app: App
    health: Health


def create_app(config: GatewayConfig, parts: Parts) -> Gateway:
    """All of the gateway but its sockets. Needs a running event loop."""
    store, telemetry, clock, limits = parts.store, parts.telemetry, parts.clock, parts.limits
    balance = parts.balance
    health = Health(
        store=store,
        can_sign=parts.can_sign,
        in_flight=lambda: balance.in_flight,
        shared=lambda: limits.connected,
    )
    demand = Demand(lambda: store.catalog, balance, parts.waiting, clock.monotonic)
    deps = Deps(
        catalog=lambda: store.catalog,
        client=Client(parts.pool, parts.outside, clock.monotonic),
        balance=balance,
        ticker=Ticker(),
        tokens=parts.tokens,
        provider_keys=parts.provider_keys,
        defaults=Budget(
            connect=config.connect_timeout_seconds,
            queue=config.queue_timeout_seconds,
            first_token=config.first_token_timeout_seconds,
            stream_idle=config.stream_idle_timeout_seconds,
            total=config.total_timeout_seconds,
        ),
        cache=parts.cache,
        ledger=parts.ledger,
        waiting=parts.waiting,
        demand=demand,
        admission=Admission(limits, Estimator(), clock, telemetry.refused),
        telemetry=telemetry,
        traced=config.traces_share if parts.exporter is not None else None,
        clock=clock.monotonic,
    )
    telemetry.response_cache_bytes.set_function(lambda: parts.cache.held)
    telemetry.breakers_open.set_function(balance.breakers.open_now)
    telemetry.redis_connected.set_function(lambda: float(limits.connected or 0))
    status = Status(health, balance, parts.waiting, parts.admin.verify, clock, parts.name)
    app: App = Routes(
        _proxied(Proxy(deps), config), Listing(lambda: store.catalog), health, status, telemetry
    )
    app = Authenticate(app, verify(store, clock), PUBLIC, name_of=lambda key: str(key.ref))
    requests = Requests(clock)
    admin = Authenticate(
        Admin(parts.ledger, requests, parts.cache, demand), parts.admin.verify, name_of=str
    )
    app = ByPrefix(ADMIN_PATH, admin, ByPrefix(PICTURES_PATH, Pictures(deps), app))
    app = BodyLimit(app, config.max_body_bytes, config.max_media_bytes, parts.body_read_seconds)
    app = errors.ErrorEnvelope(app)

    def observe(scope: Scope, status: int, seconds: float) -> None:
        telemetry.observe(scope, status, seconds)
        requests.keep(scope, status, seconds)
        if parts.exporter is not None:
            parts.exporter.note(scope, status, seconds)

    app = AccessLog(
        app,
        parts.write_log or (lambda line: None),
        quiet_paths=QUIET_PATHS | {"/status"},
        observe=observe,
        clock=clock,
    )
    return Gateway(app=RequestId(app), health=health)


def _proxied(proxy: App, config: GatewayConfig) -> dict[str, App]:
    """By path. Only forms may be so large that there is no room for all of them."""
    forms_app = BodyRoom(proxy, FORMS * config.max_media_bytes)
    return {path: forms_app if path in forms.PATHS else proxy for path in PROXIED}


def verify(store: CatalogStore, clock: Clock) -> Callable[[str], ApiKey]:
    """The check of a presented key against the catalog as it is at that moment."""

    def check(token: str) -> ApiKey:
        if not store.ready:
            raise errors.NotReady("the gateway is starting: try again", retry_after=2)
        if store.freshness.expired:
            raise errors.NotReady(EXPIRED, retry_after=30, code="catalog_expired")
        return store.catalog.keyring.verify(token, clock.wall())

    return check


class Routes:
    """Path and method to handler; 404 and 405 for the rest."""

    def __init__(
        self,
        proxied: Mapping[str, App],
        listing: Listing,
        health: Health,
        status: App,
        telemetry: Telemetry,
    ) -> None:
        metrics = endpoint(telemetry.registry, lambda: telemetry.watched(health.store))
        read = "GET"
        self._listing = listing
        self._table: dict[str, tuple[str, App]] = {
            path: ("POST", app) for path, app in proxied.items()
        }
        self._table[MODELS_PATH] = (read, listing.every)
        self._table["/health"] = self._table["/ready"] = (read, health.ready)
        self._table["/livez"] = (read, health.live)
        self._table["/status"] = (read, status)
        self._table["/metrics"] = (read, metrics)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        path, method = scope["path"], scope["method"]
        found = self._table.get(path)
        if found is None:
            if not path.startswith(MODELS_PATH + "/"):
                raise errors.NotFound(f"there is nothing at {path[:128]}: see the API reference")
            found = ("GET", self._listing.one)
        allowed, handler = found
        if method != allowed and not (method == "HEAD" and allowed == "GET"):
            raise errors.MethodNotAllowed(
                f"{path[:128]} takes {allowed}, not {method[:16]}",
                extra_headers=[(b"allow", allowed.encode())],
            )
        return handler(scope, receive, send)
