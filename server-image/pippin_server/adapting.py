"""Adapters that come and go while the model is served, from where that is allowed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import structlog

from pippin_contract.serverconfig import AdapterConfig
from pippin_edge import errors

from .engines.adapters import MOST, Adaptable
from .engines.base import EngineError, LoadFailed
from .resilience.redact import redact
from .roster import Named, Roster

log = structlog.get_logger("pippin.server")

#: From a config to its directory, fetched and whole. Raises LoadFailed.
Locate = Callable[[AdapterConfig], Awaitable[Path | None]]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}")


class Adapting:
    """One at a time. `sources`: beginnings of uris that adapters may come from."""

    def __init__(
        self, engine: Adaptable, roster: Roster, locate: Locate, sources: Sequence[str]
    ) -> None:
        self._engine = engine
        self._roster = roster
        self._locate = locate
        self._sources = sources
        self._turn = asyncio.Lock()

    async def load(self, name: str, source: str) -> Named:
        """Raises BadRequest, NotReady."""
        uri = f"file://{source}" if source.startswith("/") else source
        async with self._turn:
            self._check(name, uri)
            try:
                path = await self._locate(AdapterConfig(name=name, uri=uri))
                await self._engine.adapt(name, path or Path())
            except LoadFailed as failure:
                log.warning("adapter.failed", adapter=name, reason=failure.reason)
                raise _refused(failure) from failure
            except EngineError as error:
                raise errors.NotReady(str(error)) from error
            self._roster.add(name)
        log.info("adapter.loaded", adapter=name)
        return self._roster.named(name)

    async def unload(self, name: str) -> Named:
        """Answers on their way end by it. Raises ModelNotFound, NotReady."""
        async with self._turn:
            if name not in self._roster:
                raise errors.ModelNotFound(
                    f"no adapter '{name[:128]}' is loaded: ask /v1/models", param="lora_name"
                )
            named = self._roster.named(name)
            self._roster.remove(name)
            try:
                await self._engine.forget(name)
            except EngineError as error:
                raise errors.NotReady(str(error)) from error
        log.info("adapter.unloaded", adapter=name)
        return named

    def _check(self, name: str, uri: str) -> None:
        """Raises BadRequest."""
        if not _NAME.fullmatch(name):
            raise _wrong("lora_name", "1 to 128 letters, digits and ._:@-, a letter or digit first")
        if name in self._roster:
            raise _wrong("lora_name", f"'{name}' is loaded already: unload it first, or rename it")
        if len(self._roster) >= MOST:
            raise _wrong("lora_name", f"{MOST} adapters are loaded: unload one first")
        if not any(_below(uri, source) for source in self._sources):
            raise _wrong("lora_path", "not from there: see PIPPIN_SERVER_ADAPTER_SOURCES")


def _below(uri: str, source: str) -> bool:
    """Whether it is what is allowed, or in it; what begins with the same letters is not."""
    if ".." in uri.split("/"):
        return False
    revision = source.startswith("hf://") and uri.startswith(source + "@")
    return uri == source or revision or uri.startswith(source.rstrip("/") + "/")


def _wrong(param: str, message: str) -> errors.BadRequest:
    return errors.BadRequest(f"'{param}': {message}", param=param, code="invalid_value")


def _refused(failure: LoadFailed) -> errors.ApiError:
    words = f"{failure.reason}: {redact(failure.message)}"
    if failure.permanent:
        return errors.BadRequest(words, param="lora_path", code="adapter_unusable")
    return errors.NotReady(words)
