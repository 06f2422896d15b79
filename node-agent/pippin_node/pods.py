"""The Pods that the scheduler bound to this node: list, watch, one worker each."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator
from pathlib import Path

import structlog

from .client import ApiError, Client, Unreachable
from .container import Container
from .context import Context
from .records import Json, PodDir, pod_dirs, read_json
from .worker import PodWorker

log = structlog.get_logger(__name__)

PODS = "/api/v1/pods"
#: Pause before the API server is asked again, seconds; a little random, so that nodes spread.
RETRY = (1.0, 3.0)


class PodManager:
    """Owns the workers and their tasks."""

    def __init__(self, context: Context, root: Path) -> None:
        self._context = context
        self._root = root
        self._workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def adopt(self) -> None:
        """Take over the Pods on record before the API server is asked: they go on meanwhile."""
        for directory in pod_dirs(self._root):
            pod = read_json(directory.manifest)
            if pod is None:
                directory.remove()  # of a Pod that nothing was started for yet
                continue
            worker = PodWorker(self._context, pod, directory)
            worker.adopt()
            self._begin(worker)

    async def run(self) -> None:
        """Follow the API server for ever."""
        selector = {"fieldSelector": f"spec.nodeName={self._context.node}"}
        while True:
            try:
                await self._follow(self._context.client, selector)
            except (ApiError, Unreachable) as error:
                log.warning("pods.watch_lost", error=str(error))
                await asyncio.sleep(random.uniform(*RETRY))

    async def stop(self) -> None:
        """Leave all Pods running and let go of them."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for worker in self._workers.values():
            worker.release()

    def pods(self) -> list[Json]:
        return [worker.pod for worker in self._workers.values()]

    def containers(self) -> Iterator[Container]:
        for worker in self._workers.values():
            yield from worker.containers

    def find(self, namespace: str, name: str) -> PodWorker | None:
        """The worker of a Pod by name; the youngest, should two be on their way."""
        found = None
        for worker in self._workers.values():
            meta = worker.pod["metadata"]
            if (meta["namespace"], meta["name"]) == (namespace, name):
                found = worker
        return found

    def by_uid(self, uid: str) -> PodWorker | None:
        return self._workers.get(uid)

    async def _follow(self, client: Client, selector: dict[str, str]) -> None:
        listing = await client.get(PODS, selector)
        self._replace(listing.get("items", []))
        version = listing["metadata"]["resourceVersion"]
        while True:
            asked = {**selector, "resourceVersion": version}
            async with contextlib.aclosing(client.watch(PODS, asked)) as events:
                async for event in events:
                    version = self._seen(event) or version

    def _replace(self, pods: list[Json]) -> None:
        present = {pod["metadata"]["uid"] for pod in pods}
        for pod in pods:
            self._update(pod, listed=True)
        for uid, worker in self._workers.items():
            if uid not in present:
                worker.gone()

    def _seen(self, event: Json) -> str | None:
        """Deal with one event; the version to go on from."""
        pod = event["object"]
        if event["type"] == "ERROR":
            code, reason = pod.get("code", 500), pod.get("reason", "")
            raise ApiError(code, reason, pod.get("message", "the watch ended with an error"))
        if event["type"] in ("ADDED", "MODIFIED"):
            self._update(pod)
        elif event["type"] == "DELETED":
            self._deleted(pod)
        version: str | None = pod["metadata"].get("resourceVersion")
        return version

    def _update(self, pod: Json, *, listed: bool = False) -> None:
        pod.setdefault("apiVersion", "v1")
        pod.setdefault("kind", "Pod")
        uid = pod["metadata"]["uid"]
        worker = self._workers.get(uid)
        if worker is not None:
            worker.update(pod, listed=listed)
            return
        directory = PodDir(self._root / "pods" / uid)
        self._begin(PodWorker(self._context, pod, directory))

    def _deleted(self, pod: Json) -> None:
        worker = self._workers.get(pod["metadata"]["uid"])
        if worker is not None:
            worker.update(pod)
            worker.gone()

    def _begin(self, worker: PodWorker) -> None:
        self._workers[worker.uid] = worker
        task = asyncio.create_task(self._keep(worker), name=f"pod {worker.uid}")
        self._tasks[worker.uid] = task

    async def _keep(self, worker: PodWorker) -> None:
        await worker.run()
        self._workers.pop(worker.uid, None)
        self._tasks.pop(worker.uid, None)
