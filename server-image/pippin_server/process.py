"""One server process from its first byte in memory to its exit code.

HTTP is up while the model loads, so that the probes can tell how far it is. A model that cannot be
served ends the process with a message where Kubernetes looks for it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from pippin_contract import native, wire
from pippin_contract.serverconfig import AdapterConfig, ModelConfig, ServerConfig
from pippin_edge import serving
from pippin_edge.access_log import LineWriter
from pippin_edge.asgi import App
from pippin_edge.clock import SYSTEM

from . import settings as told
from .engines import registry
from .engines.adapters import Adaptable, about
from .engines.base import LoadFailed, Progress, Transfer
from .keys import Verify
from .models import adapters, loader
from .models.discovery import Found
from .models.sources import base as sources
from .resilience.redact import redact

if TYPE_CHECKING:
    # The web framework takes 0.4 seconds of a CPU to import: not to drain, which every Pod does.
    from .app import Server, Surroundings

log = structlog.get_logger("pippin.server")

#: sysexits' EX_TEMPFAIL: another try may go better.
EXIT_AGAIN = 75
#: Seconds for the last bytes to leave once nothing runs any more.
_LAST_BYTES = 5.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What the command line settled."""

    settings: told.Settings
    config: ServerConfig
    host: str
    port: int
    verify: Verify | None
    #: The models of a directory; None: there is one, and `config` is about it.
    found: tuple[Found, ...] | None = None

    def surroundings(self) -> registry.Surroundings:
        """Where an engine may write, below the cache, and how much memory it may take."""
        settings = self.settings
        cache = native.resolve(str(settings.cache_dir), told.environment())
        strict = settings.memory_check == "refuse"
        may = bool(settings.adapter_sources)
        return registry.Surroundings(cache, settings.log_level, settings.memory_limit, strict, may)

    def sources(self, of: ModelConfig | AdapterConfig) -> sources.Surroundings:
        """What the source of the model, or of one of its adapters, may use. Raises LoadFailed."""
        settings, environ = self.settings, told.environment()
        directory = of.credentials_dir
        return sources.Surroundings(
            cache=native.resolve(str(settings.cache_dir), environ),
            environ=environ,
            token=loader.token(of.token_file, environ),
            credentials=native.resolve(directory, environ) if directory else None,
            networks=settings.private_networks,
            plain_registries=settings.plain_http_registries,
            roots=settings.file_roots,
        )


def write_termination_message(reason: str, message: str) -> None:
    """What `kubectl describe` and the operator read; not there outside of Kubernetes."""
    text = wire.termination_message(reason, redact(message))
    with suppress(OSError):
        told.termination_log().write_text(text)


@dataclass(frozen=True, slots=True)
class Work:
    """What a process does until it is told to end."""

    app: App
    #: Requests under way.
    active: Callable[[], object]
    #: Take in nobody any more, within these seconds.
    drain: Callable[[float], Awaitable[bool]]
    close: Callable[[], Awaitable[None]]
    #: Done beside; None: nothing.
    load: Callable[[asyncio.Event], Coroutine[None, None, None]] | None = None
    failure: Callable[[], LoadFailed | None] = lambda: None


async def run(plan: Plan) -> int:
    """Serve until told to end; the exit code."""
    from .app import Surroundings

    listener = serving.bind(plan.host, plan.port)
    lines = LineWriter(_write_out)
    around = Surroundings(plan.verify, SYSTEM, lines, partial(_locate, plan, _silently))
    work = _one(plan, around) if plan.found is None else _several(plan, around)
    stop = asyncio.Event()
    ending = _Ending(work, plan.config.drain_timeout_seconds, stop)
    ending.listen()
    loading = asyncio.create_task(work.load(stop)) if work.load else None
    log.info("server.listening", host=plan.host, port=listener.getsockname()[1])
    drain = serving.Drain(linger=0, timeout=_LAST_BYTES)
    await serving.serve(work.app, listener, stop, drain)
    if loading is not None:
        loading.cancel()
        with suppress(asyncio.CancelledError):
            await loading
    await work.close()
    await lines.close()
    return _exit_code(work.failure())


def _one(plan: Plan, around: Surroundings) -> Work:
    from .app import create_app

    engine = registry.create(plan.config, plan.surroundings(), SYSTEM.monotonic)
    server = create_app(plan.settings, plan.config, engine, around)
    admission = server.stand.admission
    return Work(
        server.app,
        lambda: admission.active,
        admission.drain,
        engine.close,
        lambda stop: _load(plan, server, stop),
        lambda: server.lifecycle.failure,
    )


def _several(plan: Plan, around: Surroundings) -> Work:
    from . import several

    house, app = several.create(
        plan.settings, plan.config, plan.found or (), plan.surroundings(), around
    )
    return Work(app, lambda: house.queue()["active"], house.drain, house.close)


async def _load(plan: Plan, server: Server, stop: asyncio.Event) -> None:
    async def locate() -> Path:
        model, advance = plan.config.model, server.lifecycle.advance
        path = await loader.locate(model, plan.sources(model), advance)
        await _adapters(plan, server.stand.engine, advance)
        return path

    try:
        needed = registry.needs_weights(plan.config)
        await server.stand.load(locate if needed else None, warmup=plan.settings.warmup)
    except LoadFailed as failure:
        log.error("model.failed", reason=failure.reason, message=redact(failure.message))
        write_termination_message(failure.reason, failure.message)
        server.lifecycle.failed(failure)
        stop.set()


async def _adapters(plan: Plan, engine: registry.Anything, progress: Progress) -> None:
    """Fetched first, so that what cannot be had is known before the model takes its time."""
    if isinstance(engine, Adaptable):
        found = {one.name: await _locate(plan, progress, one) for one in plan.config.adapters}
        engine.adapters = {name: path for name, path in found.items() if path is not None}


async def _locate(plan: Plan, progress: Progress, adapter: AdapterConfig) -> Path | None:
    """None: the engine needs none of its weights."""
    if not registry.needs_weights(plan.config):
        return None
    with about(adapter.name):
        around = plan.sources(adapter)
    return await adapters.locate(adapter, around, progress)


def _silently(percent: int, message: str, transfer: Transfer | None = None) -> None:
    """The probes tell of the model."""


class _Ending:
    """On a signal: refuse what comes, finish what runs, then stop; a second signal hurries."""

    def __init__(self, work: Work, within: float, stop: asyncio.Event) -> None:
        self._work = work
        self._within = within
        self._stop = stop
        self._task: asyncio.Task[None] | None = None

    def listen(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told)

    def _told(self) -> None:
        if self._task is None:
            log.info("server.draining", active=self._work.active())
            self._task = asyncio.create_task(self._end())
        else:
            self._within = 0
            self._task.cancel()
            self._task = asyncio.create_task(self._end())

    async def _end(self) -> None:
        if not await self._work.drain(self._within):
            log.warning("server.cut_off", active=self._work.active())
            await self._work.close()
        self._stop.set()


def _exit_code(failure: LoadFailed | None) -> int:
    if failure is None:
        return 0
    return wire.EXIT_CONFIG if failure.permanent else EXIT_AGAIN


def _write_out(chunk: bytes) -> None:
    sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


def leave(code: int) -> None:
    """End without waiting for threads that a library may hold in a download or a computation."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
