"""A server with several models: each is loaded when it is first asked for, and goes when there is
no room for others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from prometheus_client import CollectorRegistry

from pippin_contract.serverconfig import ServerConfig
from pippin_edge import errors
from pippin_edge.asgi import App, Scope
from pippin_edge.errors import ModelNotFound

from .app import OPEN_PATHS, Surroundings, api_of, behind_the_edge, inspecting, nobody
from .engines import registry as engines
from .familiar import Familiar
from .figures import Figures
from .measure import counts_for
from .models.discovery import Found
from .models.registry import Bounds, Entry, Failed, Full, InUse, Registry, Unavailable
from .openai import described
from .openai.models import card
from .resilience.redact import redact
from .roster import Named
from .routes import dispatch, images, loading, models, openapi
from .settings import Settings
from .shop import Branch, Means, Shop
from .stand import Stand
from .telemetry import Answers, Collected, Telemetry, Together, evictions


class Several:
    """A `stand.House`, and who has the models for the routes."""

    def __init__(self, found: Sequence[Found], means: Means, bounds: Bounds) -> None:
        clock = means.clock
        self.figures = Figures(clock.monotonic)
        self.answers = Answers(CollectorRegistry())
        self.shop = Shop(found, means, bounds.models)
        names = [one.name for one in found]
        self.registry: Registry[Branch] = Registry(names, self.shop, bounds, clock.monotonic)
        self._names = {alias: one.name for one in found for alias in one.config.aliases}
        self._names |= {name: name for name in names}
        self._means = means
        self._created = int(clock.wall())
        self._draining = False

    # Of the models.

    def name_of(self, asked: str) -> str:
        name = self._names.get(asked)
        if name is None:
            raise ModelNotFound(
                f"the model '{asked[:512]}' is not served here: ask /v1/models", param="model"
            )
        return name

    @asynccontextmanager
    async def use(self, name: str, scope: Scope) -> AsyncIterator[App]:
        books = self.shop.books(name)
        counts_for(scope, books.telemetry, books.figures)
        if self._draining:
            raise errors.NotReady("this server is about to end: try again", retry_after=2)
        try:
            async with self.registry.use(name) as branch:
                yield branch.app
        except Unavailable as error:
            raise _as_api_error(name, error) from error

    async def load(self, name: str) -> dict[str, object]:
        try:
            branch = await self.registry.load(name)
        except Unavailable as error:
            raise _as_api_error(name, error) from error
        seconds = round(branch.stand.lifecycle.load_seconds, 3)
        return {**self._told(self.registry.entries[name]), "load_seconds": seconds}

    async def unload(self, name: str) -> dict[str, object]:
        try:
            await self.registry.unload(name)
        except InUse as error:
            raise errors.Conflict(
                f"the model '{name}' is in use: try again when its requests have ended",
                code="model_in_use",
            ) from error
        return self._told(self.registry.entries[name])

    def every(self) -> Sequence[Mapping[str, object]]:
        return [self._card(entry) for entry in self.registry.entries.values()]

    def one(self, name: str) -> Mapping[str, object] | None:
        known = self._names.get(name)
        return None if known is None else self._card(self.registry.entries[known])

    def _card(self, entry: Entry[Branch]) -> Mapping[str, object]:
        loaded = entry.model.stand.lifecycle.loaded if entry.model else None
        config = self.shop.configs[entry.name]
        named = Named(config.served_name)
        shown = card(config, named, loaded=loaded, created=self._created)
        return {**shown, "status": entry.state}

    def _told(self, entry: Entry[Branch]) -> dict[str, object]:
        config = self.shop.configs[entry.name]
        told: dict[str, object] = {"model": entry.name, "status": entry.state}
        told |= {"engine": config.engine, "type": config.model.task}
        told |= {"memory_bytes": entry.held, "evictions": entry.evictions}
        told["request_count"] = self.shop.requests(entry.name)
        if entry.failure is not None:
            told["reason"] = f"{entry.failure.reason}: {redact(entry.failure.message)}"
        return told

    # Of the house.

    def stands(self) -> Sequence[Stand]:
        return [entry.model.stand for entry in self.registry.entries.values() if entry.model]

    def ready(self) -> Sequence[Stand]:
        return self.stands()

    def not_ready(self) -> str | None:
        if self._draining:
            return "Draining: this server is about to end"
        return self.not_alive()

    def not_alive(self) -> str | None:
        for stand in self.stands():
            reason = stand.lifecycle.not_alive()
            if reason is not None:
                return f"{reason} (model '{stand.config.served_name}')"
        return None

    async def drain(self, within: float) -> bool:
        self._draining = True
        self.registry.refuse()
        drained = [stand.admission.drain(within) for stand in self.stands()]
        return all(await asyncio.gather(*drained))

    async def close(self) -> None:
        await self.registry.close()

    def queue(self) -> dict[str, object]:
        admissions = [stand.admission for stand in self.stands()]
        waiting = (e.users for e in self.registry.entries.values() if e.model is None)
        return {
            "active": sum(one.active for one in admissions),
            "pending": sum(one.pending for one in admissions),
            "pending_batch": sum(one.pending_batch for one in admissions),
            "waiting_for_load": sum(waiting),
            "max_concurrency": self._means.config.max_concurrency,
            "max_queue": self._means.config.max_queue,
            "draining": self._draining,
        }

    def health(self) -> dict[str, object]:
        loaded = self.registry.loaded()
        latest = max(loaded, key=lambda entry: entry.used_at, default=None)
        return {
            "model_id": latest.name if latest else None,
            "model_status": "initialized",
            "models_loaded": len(loaded),
            "warmup_completed": all(stand.lifecycle.warmed_up for stand in self.stands()),
        }

    def components(self) -> dict[str, object]:
        return {"registry": "ready"}

    def memory(self) -> dict[str, object] | None:
        parts = {one.config.served_name: one.lifecycle.loaded for one in self.stands()}
        reckoned = {name: loaded.memory if loaded else None for name, loaded in parts.items()}
        limit = self.registry.bounds.memory
        return {"limit_bytes": limit, "held_bytes": self.registry.held, "models": reckoned}

    def settings(self) -> dict[str, object]:
        bounds = self.registry.bounds
        return {
            "max_loaded_models": bounds.models,
            "load_timeout_seconds": bounds.timeout,
            "max_concurrency": self._means.config.max_concurrency,
            "engine": self._means.config.engine,
            "warmup": self._means.warmup,
        }

    def models(self) -> dict[str, object]:
        return {"known": [self._told(entry) for entry in self.registry.entries.values()]}

    # Of the metrics.

    def telemetries(self) -> Sequence[Answers]:
        return [self.answers, *self._counted()]

    def evicted(self) -> list[tuple[str, str, int]]:
        entries = self.registry.entries.values()
        return [(e.name, self.shop.configs[e.name].engine, e.evictions) for e in entries]

    def _counted(self) -> Iterable[Telemetry]:
        return (books.telemetry for books in self.shop.every_book())


def create(
    settings: Settings,
    config: ServerConfig,
    found: Sequence[Found],
    means: engines.Surroundings,
    around: Surroundings,
) -> tuple[Several, App]:
    """The house and its app. `config`: what holds for all models that say nothing else."""
    bounds = Bounds(settings.max_loaded_models, engines.room(means), settings.load_timeout)
    house = Several(found, Means.of(settings, config, means, around.clock), bounds)
    registry = _metrics(house, around.clock.monotonic)
    verify = around.verify or nobody
    routers = [
        dispatch.router(house),
        images.pictures(house.shop.shelf),
        models.router(house),
        loading.router(house, verify),
        *inspecting(house, registry, settings, config, around),
    ]
    told = openapi.Described(_request(found), None if around.verify is None else OPEN_PATHS)
    api = api_of([*routers, openapi.router(routers, lambda: told)])
    return house, behind_the_edge(api, settings, around, house.answers, house.figures)


def _metrics(house: Several, clock: Callable[[], float]) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(Together(lambda: [one.registry for one in house.telemetries()]))
    registry.register(Familiar(house.telemetries, clock))
    registry.register(Collected(evictions(house.evicted)))
    return registry


def _request(found: Iterable[Found]) -> openapi.Request:
    """Bodies as they are described: with all that one of the models' engines honours."""
    honours: frozenset[str] = frozenset().union(*(engines.honours(one.config) for one in found))

    def request(path: str, schemas: dict[str, Any]) -> dict[str, Any]:
        return described.request(path, honours, schemas)

    return request


def _as_api_error(name: str, error: Unavailable) -> errors.ApiError:
    words = redact(str(error))
    match error:
        case Failed():
            told = f"the model '{name}' could not be loaded: {words}"
            return errors.NotReady(told, code="model_failed", retry_after=error.again)
        case Full():
            return errors.Overloaded(words, retry_after=error.again)
    return errors.NotReady(words, retry_after=error.again)
