"""Kept connections, by replica: bounded in number and in idle time."""

from __future__ import annotations

import asyncio
from collections import deque

from ..catalog.model import Replica
from .http1 import Connection

#: Idle connections kept to one replica.
MAX_IDLE = 256
#: Seconds; less than any server of ours keeps an idle connection.
IDLE_SECONDS = 30.0
SWEEP_SECONDS = 10.0


class Pool:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._idle: dict[str, deque[Connection]] = {}
        self._known: frozenset[str] = frozenset()
        self._sweeper: asyncio.TimerHandle | None = None

    def idle(self, replica: Replica) -> Connection | None:
        """The connection that was used last and is still open."""
        kept = self._idle.get(replica.id)
        while kept:
            connection = kept.pop()
            if not connection.closed:
                return connection
        return None

    def give_back(self, replica: Replica, connection: Connection) -> None:
        """Keep it if it may carry another exchange, else close it."""
        connection.rest()
        kept = self._idle.setdefault(replica.id, deque())
        if not connection.reusable or replica.id not in self._known or len(kept) >= MAX_IDLE:
            connection.close()
            if not kept:
                del self._idle[replica.id]
            return
        connection.idle_since = self._loop.time()
        kept.append(connection)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def retain(self, replica_ids: frozenset[str]) -> None:
        """Replicas that left get no further requests: their idle connections end."""
        self._known = replica_ids
        for replica_id in [known for known in self._idle if known not in replica_ids]:
            for connection in self._idle.pop(replica_id):
                connection.close()

    def close(self) -> None:
        self.retain(frozenset())
        if self._sweeper is not None:
            self._sweeper.cancel()

    def __len__(self) -> int:
        return sum(map(len, self._idle.values()))

    def _sweep(self) -> None:
        horizon = self._loop.time() - IDLE_SECONDS
        for replica_id, kept in list(self._idle.items()):
            while kept and (kept[0].closed or kept[0].idle_since < horizon):
                kept.popleft().close()
            if not kept:
                del self._idle[replica_id]
        self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep) if self._idle else None
