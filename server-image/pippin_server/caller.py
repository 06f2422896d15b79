"""Notices that the caller has left, and ends the work that was for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

from pippin_edge.asgi import Scope, state
from pippin_edge.errors import ClientGone
from pippin_edge.protocol import Protocol


class Caller:
    """`async with Caller(scope) as caller:` is cancelled, and raises ClientGone, when they leave.

    Enter it when the body has been read.
    """

    def __init__(self, scope: Scope) -> None:
        self._connection: Protocol = state(scope)["connection"]
        self._gone = False
        self._task: asyncio.Task[object] | None = None

    def hand_over(self, leave: Callable[[], object]) -> None:
        """From now on their leaving is told by this call, and nothing is cancelled."""
        self._connection.on_gone = leave

    def answered(self) -> None:
        """Said just before the last byte is sent: leaving is no news any more."""
        self._connection.on_gone = None

    async def __aenter__(self) -> Caller:
        self._task = asyncio.current_task()
        if self._connection.transport.is_closing():
            raise ClientGone
        self._connection.on_gone = self._left
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._connection.on_gone = None
        if self._gone and kind is asyncio.CancelledError and self._task is not None:
            self._task.uncancel()
            raise ClientGone from error

    def _left(self) -> None:
        if self._task is not None:
            self._gone = True
            self._task.cancel()
