"""One exchange with one replica, over a kept connection or a new one."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..catalog.model import Replica
from ..routing.retry import Failure
from ..routing.timeouts import Deadlines
from .dial import dial
from .failure import UpstreamFailure
from .guard import Guard
from .http1 import Connection
from .outside import Outside
from .pool import Pool


class Request(NamedTuple):
    """As it goes out. The head carries the token too; the node of a native Pod asks for it."""

    head: bytes
    body: bytes
    token: str


class Exchange:
    """An answer whose head is here. Close it always: that keeps or ends its connection."""

    __slots__ = ("_connection", "_pool", "headers", "read", "replica", "status", "take")

    def __init__(self, pool: Pool, replica: Replica, connection: Connection) -> None:
        self._pool = pool
        self._connection = connection
        self.replica = replica
        self.status = connection.status
        self.headers = connection.headers
        #: The next part of the body; empty at its end. Raises UpstreamFailure.
        self.read = connection.read
        #: What has come of the body, and was not read.
        self.take = connection.take

    def tap(self, tap: Callable[[], bool] | None) -> None:
        """Have parts taken as they come, while a task waits in `read`: see Connection.tap."""
        self._connection.tap = tap

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
        kept = connection = self.pool.idle(replica)
        while True:
            if connection is None:
                guard.until(deadlines.connect(self._clock()))
                connection = await self._open(replica, request.token)
            guard.until(deadlines.answer(self._clock()))
            connection.send(request.head, request.body)
            try:
                await connection.head()
            except BaseException as error:
                connection.close()
                if connection is not kept or not _was_dead(error, connection):
                    raise
                connection = None
            else:
                return Exchange(self.pool, replica, connection)

    async def _open(self, replica: Replica, token: str) -> Connection:
        if replica.outside is None:
            return await dial(replica.endpoint, token)
        return await self._outside.connect(replica.outside.place)


def _was_dead(error: BaseException, connection: Connection) -> bool:
    """Whether nobody was there any more when the request was sent."""
    reset = isinstance(error, UpstreamFailure) and error.kind is Failure.RESET
    return reset and not connection.received
