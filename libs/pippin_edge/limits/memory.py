"""Windows in this process' memory: right for one gateway, per replica for several."""

from __future__ import annotations

from typing import Protocol

from .window import SECONDS, Verdict, Window


class Store(Protocol):
    """Where windows are kept. Shared stores need the network, hence async."""

    async def take(self, key: str, limit: int, now: float) -> Verdict: ...


class MemoryStore:
    """One window a key; those that were idle for a whole window are forgotten."""

    def __init__(self) -> None:
        self._windows: dict[str, Window] = {}
        self._swept = 0.0

    async def take(self, key: str, limit: int, now: float) -> Verdict:
        """`now` is any clock in seconds that never goes back."""
        if now - self._swept > SECONDS:
            self._sweep(now)
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = Window()
        return window.take(limit, now)

    def __len__(self) -> int:
        return len(self._windows)

    def _sweep(self, now: float) -> None:
        self._swept = now
        for key, window in list(self._windows.items()):
            window.expire(now)
            if not window.used:
                del self._windows[key]
