"""One model and all that is needed to answer for it; and the house around one of them, or many."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog
from prometheus_client import CollectorRegistry

from pippin_contract.serverconfig import ServerConfig
from pippin_edge.clock import Clock

from .admission import Admission
from .answering import Kitchen
from .engines.base import Host, LoadFailed, Strain
from .engines.registry import Anything
from .figures import Figures
from .lifecycle import Lifecycle
from .roster import Roster
from .telemetry import CacheUse, Kept, State, Telemetry

log = structlog.get_logger("pippin.server")


@dataclass(frozen=True, slots=True)
class Books:
    """What was counted of a model's requests; it outlives the engine."""

    telemetry: Telemetry
    figures: Figures

    @classmethod
    def of(cls, config: ServerConfig, clock: Clock) -> Books:
        telemetry = Telemetry(CollectorRegistry(), config.served_name, config.engine)
        return cls(telemetry, Figures(clock.monotonic))


@dataclass(frozen=True, slots=True)
class Stand:
    """One model with its engine."""

    config: ServerConfig
    engine: Anything
    lifecycle: Lifecycle
    books: Books
    kitchen: Kitchen
    roster: Roster

    @classmethod
    def of(cls, config: ServerConfig, engine: Anything, books: Books, clock: Clock) -> Stand:
        """Not loaded yet."""
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
        telemetry = books.telemetry
        telemetry.cache_use = lambda: _cache_use(engine)
        telemetry.strain = lambda: _strain(engine)
        kitchen = Kitchen(admission, lifecycle, telemetry, clock)
        adapters = [adapter.name for adapter in config.adapters]
        roster = Roster((config.served_name, *config.aliases), adapters)
        return cls(config, engine, lifecycle, books, kitchen, roster)

    @property
    def admission(self) -> Admission:
        return self.lifecycle.admission

    async def load(self, locate: Callable[[], Awaitable[Path]] | None, *, warmup: bool) -> None:
        """Become able to answer; `locate` None: without weights. Raises LoadFailed."""
        lifecycle = self.lifecycle
        try:
            path = None if locate is None else await locate()
            loaded = await self.engine.load(path, lifecycle.advance)
            if warmup:
                lifecycle.advance(100, "warming up")
                await self.engine.warm_up()
                lifecycle.warmed_up = True
        except LoadFailed:
            raise
        except Exception as error:
            # A bug, or a library's: said in the log, and where Kubernetes looks, before the end.
            log.exception("model.crashed")
            words = f"{type(error).__name__} while loading: see the log"
            raise LoadFailed("EngineFailed", words, permanent=False) from error
        lifecycle.became_ready(loaded)
        log.info(
            "model.ready",
            model=self.config.served_name,
            seconds=round(lifecycle.load_seconds, 2),
            context_length=loaded.context_length,
            bytes=loaded.bytes,
            **loaded.details,
        )

    def retire(self) -> None:
        """The engine is closed: nothing of it is shown, or held, any more."""
        telemetry = self.books.telemetry
        telemetry.cache_use, telemetry.strain = CacheUse, lambda: (False, 0)
        telemetry.show(State())

    def show(self) -> None:
        """Set the gauges, since somebody asks."""
        lifecycle = self.lifecycle
        self.books.telemetry.show(
            State(
                active=self.admission.active,
                pending=self.admission.pending,
                batch=self.engine.activity().batch,
                ready=lifecycle.stage == "ready",
                alive=lifecycle.not_alive() is None,
                load_seconds=lifecycle.load_seconds,
                load_bytes=lifecycle.loaded.bytes if lifecycle.loaded else 0,
            )
        )


class House(Protocol):
    """What probes and figures ask of a server, however many models it has."""

    @property
    def figures(self) -> Figures:
        """Of all models."""
        ...

    def stands(self) -> Sequence[Stand]:
        """The models that are here, or on their way."""
        ...

    def ready(self) -> Sequence[Stand]:
        """Those of them that are loaded."""
        ...

    def not_ready(self) -> str | None:
        """Why no request is taken, in words for anyone; None when they are."""
        ...

    def not_alive(self) -> str | None:
        """Why the process should be restarted; None when it is well."""
        ...

    async def drain(self, within: float) -> bool:
        """Take in nobody any more; True when all have left in time."""
        ...

    def queue(self) -> dict[str, object]:
        """Of /v1/queue/stats."""
        ...

    def health(self) -> dict[str, object]:
        """Of /health, beside what every server tells."""
        ...

    def components(self) -> dict[str, object]:
        """Of /status: how far the parts are."""
        ...

    def memory(self) -> dict[str, object] | None:
        """Of /status: what was reckoned."""
        ...

    def settings(self) -> dict[str, object]:
        """Of /internal/diagnostics."""
        ...

    def models(self) -> dict[str, object]:
        """What there is to tell beside the models that are loaded."""
        ...


@dataclass(frozen=True, slots=True)
class Alone:
    """A house of one model, which it has for its whole life."""

    stand: Stand

    @property
    def figures(self) -> Figures:
        return self.stand.books.figures

    def stands(self) -> Sequence[Stand]:
        return (self.stand,)

    def ready(self) -> Sequence[Stand]:
        return (self.stand,) if self.stand.lifecycle.loaded is not None else ()

    def not_ready(self) -> str | None:
        return self.stand.lifecycle.not_ready()

    def not_alive(self) -> str | None:
        return self.stand.lifecycle.not_alive()

    async def drain(self, within: float) -> bool:
        return await self.stand.admission.drain(within)

    def queue(self) -> dict[str, object]:
        return self.stand.admission.stats()

    def health(self) -> dict[str, object]:
        lifecycle = self.stand.lifecycle
        found: dict[str, object] = {
            "model_id": self.stand.config.served_name,
            "model_status": {"ready": "initialized"}.get(lifecycle.stage, lifecycle.stage),
            "warmup_completed": lifecycle.warmed_up,
        }
        if lifecycle.stage == "loading":
            found["progress"] = lifecycle.progress.payload()
        return found

    def components(self) -> dict[str, object]:
        return {"model": self.stand.lifecycle.stage}

    def memory(self) -> dict[str, object] | None:
        loaded = self.stand.lifecycle.loaded
        return loaded.memory if loaded else None

    def settings(self) -> dict[str, object]:
        loaded = self.stand.lifecycle.loaded
        return {
            "model_type": self.stand.config.model.task,
            "engine": self.stand.engine.name,
            "max_concurrency": self.stand.admission.max_concurrency,
            "context_length": loaded.context_length if loaded else None,
            "warmup_completed": self.stand.lifecycle.warmed_up,
        }

    def models(self) -> dict[str, object]:
        return {}


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
