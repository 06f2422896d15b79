"""One exchange with one replica, over a kept connection or a new one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..catalog.model import Replica
from ..routing.retry import Failure
from ..routing.timeouts import Deadlines
from .dial import dial
from .failure import UpstreamFailure
from .guard import Guard
from .http1 import Connection
from .outside import Outside
from .pool import Pool


@dataclass(frozen=True, slots=True)
class Request:
    """As it goes out. The head carries the token too; the node of a native Pod asks for it."""

    head: bytes
    body: bytes
    token: str


class Exchange:
    """An answer whose head is here. Close it always: that keeps or ends its connection."""

    __slots__ = ("_connection", "_pool", "headers", "replica", "status")

    def __init__(self, pool: Pool, replica: Replica, connection: Connection) -> None:
        self._pool = pool
        self._connection = connection
        self.replica = replica
        self.status = connection.status
        self.headers = connection.headers

    async def read(self) -> bytes:
        """The next part of the body; empty at its end. Raises UpstreamFailure."""
        return await self._connection.read()

    @property
    def complete(self) -> bool:
        return self._connection.complete

    @property
    def sealed(self) -> bool:
        """Whether the answer said where its body ends, so that a cut cannot look like an end."""
        return b"content-length" in self.headers or b"transfer-encoding" in self.headers

    def close(self) -> None:
        self._pool.give_back(self.replica, self._connection)


class Client:
    """Sends requests to replicas. `clock` is the event loop's time."""

    def __init__(self, pool: Pool, outside: Outside, clock: Callable[[], float]) -> None:
        self.pool = pool
        self._outside = outside
        self._clock = clock

    async def send(
        self, replica: Replica, request: Request, guard: Guard, deadlines: Deadlines
    ) -> Exchange:
        """Head and body out, the answer's head back. Raises UpstreamFailure.

        A kept connection that turns out to be dead says nothing of the replica: the request goes
        out again on a new one.
        """
        connection = self.pool.idle(replica)
        if connection is not None:
            try:
                return await self._exchange(replica, connection, request, guard, deadlines)
            except UpstreamFailure as failure:
                if failure.kind is not Failure.RESET or connection.received:
                    raise
        guard.until(deadlines.connect(self._clock()))
        connection = await self._open(replica, request.token)
        return await self._exchange(replica, connection, request, guard, deadlines)

    async def _open(self, replica: Replica, token: str) -> Connection:
        if replica.outside is None:
            return await dial(replica.endpoint, token)
        return await self._outside.connect(replica.outside.place)

    async def _exchange(
        self,
        replica: Replica,
        connection: Connection,
        request: Request,
        guard: Guard,
        deadlines: Deadlines,
    ) -> Exchange:
        try:
            guard.until(deadlines.answer(self._clock()))
            connection.send(request.head, request.body)
            await connection.head()
        except BaseException:
            connection.close()
            raise
        return Exchange(self.pool, replica, connection)
