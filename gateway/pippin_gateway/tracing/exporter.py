"""Hands the records of requests to a collector, in batches, behind the requests' backs.

Bounded: a collector that is slow or gone costs spans, never memory or a request's time.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable

import httpx2
import orjson
import structlog

from pippin_contract import __version__
from pippin_edge.asgi import Scope
from pippin_edge.clock import SYSTEM, Clock

from .spans import Record, payload

#: Seconds between two batches, and for one to be taken.
EVERY, ANSWER_SECONDS = 1.0, 5.0
#: Requests of one batch, and that wait at most.
AT_ONCE, MOST = 256, 2048

log = structlog.get_logger("pippin.traces")


class Exporter:
    """To one collector's OTLP/HTTP address. `dropped`: is told how many requests were not told."""

    def __init__(self, url: str, dropped: Callable[[int], object], clock: Clock = SYSTEM) -> None:
        self._url = url
        self._dropped = dropped
        self._clock = clock
        self._waiting: deque[Record] = deque()
        self._away = False
        self._resource = {
            "service.name": "pippin-gateway",
            "service.version": __version__,
            "service.instance.id": socket.gethostname(),
        }

    def note(self, scope: Scope, status: int, seconds: float) -> None:
        """One request is over."""
        state = scope["state"]
        trace = state.get("trace")
        if trace is None or trace.context is None or not trace.context.sampled:
            return
        if len(self._waiting) >= MOST:
            self._dropped(1)
            return
        fields = {"request_id": state.get("request_id"), **state["log"]}
        now, wall = self._clock.monotonic(), self._clock.wall()
        record = Record(wall, now, seconds, scope["path"], status, fields, trace, trace.context)
        self._waiting.append(record)

    async def run(self) -> None:
        """Until cancelled."""
        async with httpx2.AsyncClient(timeout=ANSWER_SECONDS, trust_env=False) as http:
            while True:
                await asyncio.sleep(EVERY)
                await self._hand_over(http)

    async def close(self) -> None:
        """Hand over what is left, once."""
        async with httpx2.AsyncClient(timeout=ANSWER_SECONDS, trust_env=False) as http:
            await self._hand_over(http)

    async def _hand_over(self, http: httpx2.AsyncClient) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
            try:
                await self._post(http, orjson.dumps(payload(self._resource, batch)))
            except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
                self._dropped(len(batch))
                self._say_away(repr(error))
                return

    async def _post(self, http: httpx2.AsyncClient, content: bytes) -> None:
        headers = {"content-type": "application/json"}
        answer = await http.post(self._url, content=content, headers=headers)
        answer.raise_for_status()
        if self._away:
            self._away = False
            log.info("traces.taken_again")

    def _say_away(self, why: str) -> None:
        """Once for each time that it is away."""
        if not self._away:
            self._away = True
            log.warning("traces.dropped", why=why, fix="check gateway.config.tracesUrl")
