"""One server process from its first byte in memory to its exit code.

HTTP is up while the model loads, so that the probes can tell how far it is. A model that cannot be
served ends the process with a message where Kubernetes looks for it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass

import structlog

from pippin_contract import native, wire
from pippin_contract.serverconfig import ServerConfig
from pippin_edge import serving
from pippin_edge.access_log import LineWriter
from pippin_edge.clock import SYSTEM

from . import settings as told
from .app import Server, Surroundings, create_app
from .engines import registry
from .engines.base import Engine, LoadFailed
from .keys import Verify
from .lifecycle import Lifecycle
from .models import loader
from .models.sources import base as sources
from .resilience.redact import redact

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

    def surroundings(self) -> registry.Surroundings:
        """Where an engine may write, below the cache, and how much memory it may take."""
        settings = self.settings
        cache = native.resolve(str(settings.cache_dir), told.environment())
        strict = settings.memory_check == "refuse"
        return registry.Surroundings(cache, settings.log_level, settings.memory_limit, strict)

    def sources(self) -> sources.Surroundings:
        """What the model's source may use. Raises LoadFailed."""
        settings, model, environ = self.settings, self.config.model, told.environment()
        directory = model.credentials_dir
        return sources.Surroundings(
            cache=native.resolve(str(settings.cache_dir), environ),
            environ=environ,
            token=loader.token(model.token_file, environ),
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


async def run(plan: Plan) -> int:
    """Serve until told to end; the exit code."""
    listener = serving.bind(plan.host, plan.port)
    engine = registry.create(plan.config, plan.surroundings(), SYSTEM.monotonic)
    lines = LineWriter(_write_out)
    around = Surroundings(plan.verify, SYSTEM, write_access_line=lines)
    server = create_app(plan.settings, plan.config, engine, around)
    stop = asyncio.Event()
    ending = _Ending(server, engine, plan.config.drain_timeout_seconds, stop)
    ending.listen()
    loading = asyncio.create_task(_load(plan, server, engine, stop))
    log.info("server.listening", host=plan.host, port=listener.getsockname()[1])
    drain = serving.Drain(linger=0, timeout=_LAST_BYTES)
    await serving.serve(server.app, listener, stop, drain)
    loading.cancel()
    with suppress(asyncio.CancelledError):
        await loading
    await engine.close()
    await lines.close()
    return _exit_code(server.lifecycle.failure)


async def _load(plan: Plan, server: Server, engine: Engine, stop: asyncio.Event) -> None:
    lifecycle = server.lifecycle
    try:
        path = None
        if registry.needs_weights(plan.config):
            model = plan.config.model
            path = await loader.locate(model, plan.sources(), lifecycle.advance)
        loaded = await engine.load(path, lifecycle.advance)
        if plan.settings.warmup:
            lifecycle.advance(100, "warming up")
            await engine.warm_up()
            lifecycle.warmed_up = True
    except LoadFailed as failure:
        _failed(lifecycle, failure, stop)
        return
    except Exception as error:
        # A bug, or a library's: said in the log, and where Kubernetes looks, before the end.
        log.exception("model.crashed")
        words = f"{type(error).__name__} while loading: see the log"
        _failed(lifecycle, LoadFailed("EngineFailed", words, permanent=False), stop)
        return
    lifecycle.became_ready(loaded)
    log.info(
        "model.ready",
        seconds=round(lifecycle.load_seconds, 2),
        context_length=loaded.context_length,
        bytes=loaded.bytes,
        **loaded.details,
    )


def _failed(lifecycle: Lifecycle, failure: LoadFailed, stop: asyncio.Event) -> None:
    log.error("model.failed", reason=failure.reason, message=redact(failure.message))
    write_termination_message(failure.reason, failure.message)
    lifecycle.failed(failure)
    stop.set()


class _Ending:
    """On a signal: refuse what comes, finish what runs, then stop; a second signal hurries."""

    def __init__(self, server: Server, engine: Engine, within: float, stop: asyncio.Event) -> None:
        self._server = server
        self._engine = engine
        self._within = within
        self._stop = stop
        self._task: asyncio.Task[None] | None = None

    def listen(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told)

    def _told(self) -> None:
        if self._task is None:
            log.info("server.draining", active=self._server.admission.active)
            self._task = asyncio.create_task(self._end())
        else:
            self._within = 0
            self._task.cancel()
            self._task = asyncio.create_task(self._end())

    async def _end(self) -> None:
        if not await self._server.admission.drain(self._within):
            log.warning("server.cut_off", active=self._server.admission.active)
            await self._engine.close()
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
