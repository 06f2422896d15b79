"""From the first request to the last: wait for our kinds, read everything once, watch, read again.

A session ends when it is told to, or when the watches fail for good (our kinds were deleted, say);
then the next session begins from the beginning.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, cast

import kopf
import structlog

from ..api.resources import (
    APIKEY,
    MODELDEPLOYMENT,
    SERVICEMONITOR,
    WATCHED,
    Ref,
    Resource,
)
from ..cluster import Credentials
from ..errors import OperatorError
from ..reconcile import providers, signing, usage
from ..reconcile.autoscale import Autoscaler
from ..reconcile.deps import Deps
from ..store import CHILD_SELECTOR
from ..telemetry import Metrics
from ..workqueue import WorkQueue
from . import apikeys, children, modeldeployments
from .outcome import worker

log = structlog.get_logger(__name__)

#: Seconds between two looks for something that must be there before work can begin.
_WAIT = 2.0
_OURS = (MODELDEPLOYMENT, APIKEY)


class Lifecycle:
    """One operator process. `synced` once everything has been read."""

    def __init__(self, deps: Deps, credentials: Credentials, metrics: Metrics) -> None:
        self._deps = deps
        self._credentials = credentials
        self._metrics = metrics
        self._stop = asyncio.Event()
        self.synced = False

    async def run(self) -> None:
        """Sessions, until the process is told to end."""
        self._own_signals()
        while not self._stop.is_set():
            try:
                await self._session()
                return
            except Exception as error:
                if self._stop.is_set():
                    # kopf that is stopped while it starts fails in one of its tasks: no matter.
                    log.debug("session.cut", why=repr(error))
                    return
                # Framework and network errors alike: the next session starts from what is true.
                log.exception("session.failed", again_in=_WAIT)
            await self._unless_stopped(asyncio.sleep(_WAIT))

    def _own_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> bool:
        """Do it; false when the end came before it was done."""
        task, stop = asyncio.create_task(work), asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
            return task.done()
        finally:
            stop.cancel()
            task.cancel()
            await asyncio.gather(task, stop, return_exceptions=True)

    async def _session(self) -> None:
        if not await self._unless_stopped(self._begin()):
            return
        queue = WorkQueue(
            worker(self._deps, self._metrics), concurrency=self._deps.settings.concurrency
        )
        self._metrics.queue.set_function(lambda: queue.depth)
        self._wake_all(queue)
        self.synced = True
        settings = self._deps.settings
        scaler = Autoscaler(self._deps, queue.wake, self._metrics.gateways_silent.set)
        loops = [
            asyncio.create_task(_every(settings.resync_seconds, lambda: self._resync(queue))),
            asyncio.create_task(_every(settings.api_check_seconds, lambda: self._look(queue))),
            asyncio.create_task(_every(settings.usage_seconds, lambda: usage.collect(self._deps))),
            asyncio.create_task(_every(settings.autoscale_seconds, scaler.look)),
        ]
        try:
            await self._watch(queue)
        finally:
            for task in loops:
                task.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            await queue.close()

    async def _watch(self, queue: WorkQueue[Ref]) -> None:
        """kopf's watches, until told to end or until they fail for good."""
        others = asyncio.all_tasks()
        tasks = await kopf.spawn_tasks(
            registry=self._registry(queue),
            settings=_kopf_settings(),
            clusterwide=True,
            standalone=True,
            stop_flag=self._stop,
        )
        # kopf has just taken the signals: one that came to it would be forgotten with this session.
        self._own_signals()
        await kopf.run_tasks(tasks, ignored=others)

    async def _begin(self) -> None:
        """Wait for what must be there, with words, then read everything."""
        while True:
            try:
                missing = [kind.kind for kind in _OURS if not await self._deps.cluster.serves(kind)]
                if not missing:
                    await self._read_all()
                    return
                log.warning(
                    "start.waiting",
                    why=f"the CRDs of {' and '.join(missing)} are not installed:"
                    " kubectl apply -f crds/, or install the chart with crds.install=true",
                )
            except OperatorError as error:
                log.warning("start.waiting", why=str(error))
            await asyncio.sleep(_WAIT)

    async def _read_all(self) -> None:
        deps = self._deps
        deps.installation.public_keys = await signing.ensure(deps.cluster, deps.settings.namespace)
        deps.installation.admin_token = await usage.token(deps)
        deps.installation.monitoring_api = await deps.cluster.serves(SERVICEMONITOR)
        for resource in _OURS:
            deps.store.replace(resource, *await deps.cluster.list(resource))
        await providers.read_again(deps)
        for resource in WATCHED:
            await self._read(resource)
        if deps.installation.monitoring_api:
            await self._read(SERVICEMONITOR)

    async def _read(self, resource: Resource) -> None:
        found = await self._deps.cluster.list(resource, CHILD_SELECTOR)
        self._deps.store.replace(resource, *found)

    async def _resync(self, queue: WorkQueue[Ref]) -> None:
        await self._read_all()
        self._wake_all(queue)

    async def _look(self, queue: WorkQueue[Ref]) -> None:
        """Optional APIs come and go."""
        installation = self._deps.installation
        there = await self._deps.cluster.serves(SERVICEMONITOR)
        if there == installation.monitoring_api:
            return
        if there:
            # Just announced, it may not answer yet: the next look tries again.
            await self._read(SERVICEMONITOR)
        else:
            self._deps.store.replace(SERVICEMONITOR, (), 2**63)
        log.info("api.changed", api=SERVICEMONITOR.api_version, there=there)
        installation.monitoring_api = there
        self._wake_all(queue)

    def _wake_all(self, queue: WorkQueue[Ref]) -> None:
        for resource in _OURS:
            for ref in self._deps.store.refs(resource.plural):
                queue.wake(ref)

    def _registry(self, queue: WorkQueue[Ref]) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        for door in (modeldeployments, apikeys, children):
            door.register(registry, self._deps.store, queue)

        @kopf.on.login(id="login", registry=registry)
        async def login(**_: Any) -> kopf.ConnectionInfo:
            """Asked for again whenever the API server answers 401: tokens are rotated."""
            found = await self._credentials.connection()
            return kopf.ConnectionInfo(
                server=found.server,
                ca_path=found.ca_path,
                insecure=found.insecure,
                certificate_path=found.certificate_path,
                private_key_path=found.private_key_path,
                token=found.token,
            )

        return registry


class _ForEver:
    """Pauses between tries of a watch: an API server that is away comes back some day."""

    def __iter__(self) -> Iterator[float]:
        yield from (0.2, 0.5)
        while True:
            yield 1


class _NoMemory(kopf.DiffBaseStorage):
    """kopf compares every object with its last state, for kinds of handlers that are not used."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return cast(kopf.BodyEssence, {})

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        return None

    def store(self, **_: Any) -> None:
        raise AssertionError("nothing is stored on users' objects")


def _kopf_settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.persistence.diffbase_storage = _NoMemory()
    # Kinds are looked for by us; no right to watch CRDs or namespaces is needed.
    settings.scanning.disabled = True
    settings.networking.error_backoffs = _ForEver()
    for resource in WATCHED:
        settings.watching.label_selectors[resource.api_version, resource.plural] = CHILD_SELECTOR
    # One line for every event of every object otherwise.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    return settings


async def _every(seconds: float, what: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await what()
        except OperatorError as error:
            log.warning("resync.failed", why=str(error))
