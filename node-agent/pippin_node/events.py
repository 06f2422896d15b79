"""Events of Pods, told once and counted after that; never in the way of the work."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime

import structlog

from .client import MERGE, ApiError, Client, Unreachable
from .records import Json

log = structlog.get_logger(__name__)

#: Events waiting for the API server, and events remembered for counting.
QUEUE_LIMIT = 1000
MEMORY_LIMIT = 2000
MESSAGE_LIMIT = 1024
RETRY_SECONDS = 2.0
ATTEMPTS = 30

_Key = tuple[str, str, str, str]


class Recorder:
    """`record` never waits; `run` sends."""

    def __init__(self, client: Client, node: str, now: Callable[[], datetime]) -> None:
        self._client = client
        self._node = node
        self._now = now
        self._queue: asyncio.Queue[tuple[_Key, Json]] = asyncio.Queue(QUEUE_LIMIT)
        self._sent: OrderedDict[_Key, tuple[str, int]] = OrderedDict()

    def record(self, pod: Json, kind: str, reason: str, message: str, container: str = "") -> None:
        """Note an event of type Normal or Warning; dropped when far too many wait."""
        event = self._event(pod, kind, reason, message[:MESSAGE_LIMIT], container)
        key = (pod["metadata"]["uid"], container, reason, event["message"])
        log.info("pod.event", pod=pod["metadata"]["name"], reason=reason, message=message)
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait((key, event))

    async def run(self) -> None:
        """For ever."""
        while True:
            key, event = await self._queue.get()
            for _ in range(ATTEMPTS):
                try:
                    await self._send(key, event)
                    break
                except Unreachable:
                    await asyncio.sleep(RETRY_SECONDS)
                except ApiError as error:  # for example: the namespace is going
                    log.debug("event.refused", error=str(error))
                    break

    async def _send(self, key: _Key, event: Json) -> None:
        path = f"/api/v1/namespaces/{event['metadata']['namespace']}/events"
        name, count = self._sent.get(key, ("", 0))
        if name:
            change = {"count": count + 1, "lastTimestamp": event["lastTimestamp"]}
            try:
                await self._client.patch(f"{path}/{name}", change, MERGE)
                self._remember(key, name, count + 1)
                return
            except ApiError as error:
                if error.status != 404:
                    raise
        await self._client.create(path, event)
        self._remember(key, event["metadata"]["name"], 1)

    def _remember(self, key: _Key, name: str, count: int) -> None:
        self._sent[key] = (name, count)
        self._sent.move_to_end(key)
        if len(self._sent) > MEMORY_LIMIT:
            self._sent.popitem(last=False)

    def _event(self, pod: Json, kind: str, reason: str, message: str, container: str) -> Json:
        meta = pod["metadata"]
        about = {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": meta["name"],
            "namespace": meta["namespace"],
            "uid": meta["uid"],
        }
        if container:
            about["fieldPath"] = f"spec.containers{{{container}}}"
        now = self._now().strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{meta['name']}.{secrets.token_hex(8)}",
                "namespace": meta["namespace"],
            },
            "involvedObject": about,
            "type": kind,
            "reason": reason,
            "message": message,
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": {"component": "pippin-node", "host": self._node},
            "reportingComponent": "pippin-node",
            "reportingInstance": self._node,
        }
