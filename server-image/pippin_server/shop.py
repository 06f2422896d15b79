"""Where the models of a directory are weighed, opened and closed for the registry."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pippin_contract.serverconfig import ServerConfig
from pippin_edge.asgi import App
from pippin_edge.clock import Clock

from .app import answering, api_of
from .engines import registry
from .engines.base import LoadFailed
from .models import discovery
from .models.discovery import Found
from .settings import Settings
from .shelf import Shelf
from .stand import Books, Stand


@dataclass(frozen=True, slots=True)
class Branch:
    """A model that is loaded, and the routes on which it answers."""

    stand: Stand
    app: App


@dataclass(frozen=True, slots=True)
class Means:
    """What every model is opened with. `config`: what holds for all that say nothing else."""

    config: ServerConfig
    engines: registry.Surroundings
    warmup: bool
    clock: Clock

    @classmethod
    def of(
        cls, settings: Settings, config: ServerConfig, engines: registry.Surroundings, clock: Clock
    ) -> Means:
        return cls(config, engines, settings.warmup, clock)


class Shop:
    """See `models.registry.Shop`."""

    def __init__(self, found: Iterable[Found], means: Means, most: int) -> None:
        self.configs = {one.name: one.config for one in found}
        self.shelf = Shelf(means.clock.monotonic)
        self._books: dict[str, Books] = {}
        self._means = means
        self._most = most
        #: What engines are to be told, from the weighing until they are made.
        self._weighed: dict[str, registry.Surroundings] = {}

    def books(self, name: str) -> Books:
        """From the first request on."""
        if name not in self._books:
            self._books[name] = Books.of(self.configs[name], self._means.clock)
        return self._books[name]

    def requests(self, name: str) -> int:
        """How often it was asked."""
        return self._books[name].figures.requests if name in self._books else 0

    def every_book(self) -> list[Books]:
        return list(self._books.values())

    async def weigh(self, name: str) -> int:
        config = await asyncio.to_thread(self._looked_at, name)
        held, self._weighed[name] = await asyncio.to_thread(
            registry.claim, config, self._means.engines, self._most
        )
        self.configs[name] = config
        return held

    async def open(self, name: str) -> Branch:
        config, means = self.configs[name], self._means
        engine = registry.create(config, self._weighed.pop(name), means.clock.monotonic)
        stand = Stand.of(config, engine, self.books(name), means.clock)
        # Before it is loaded: some engines hear here whom to tell what they do.
        branch = Branch(stand, api_of(answering(stand, self.shelf)))
        try:
            await stand.load(_here(config), warmup=means.warmup)
        except BaseException:
            await self._let_go(stand)
            raise
        return branch

    async def close(self, name: str, model: Branch) -> None:
        await self._let_go(model.stand)

    def sound(self, model: Branch) -> bool:
        return model.stand.engine.activity().alive

    def _looked_at(self, name: str) -> ServerConfig:
        """Its files may be others than at the start. Raises LoadFailed."""
        path = Path(self.configs[name].model.path)
        found = discovery.look(name, path, self._means.config)
        if found.problems:
            raise LoadFailed("ModelCorrupted", "; ".join(found.problems[:5]))
        return found.config.model_copy(update={"aliases": self.configs[name].aliases})

    async def _let_go(self, stand: Stand) -> None:
        await stand.engine.close()
        stand.retire()
        await asyncio.to_thread(registry.release, stand.config)


def _here(config: ServerConfig) -> Callable[[], Awaitable[Path]] | None:
    async def located() -> Path:
        return Path(config.model.path)

    return located if registry.needs_weights(config) else None
