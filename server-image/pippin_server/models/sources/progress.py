"""How far the weights are: bytes, percent, seconds left; for the probes and for the log."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from ...engines.base import Progress, Transfer

log = structlog.get_logger("pippin.server")

#: Seconds between two lines in the log.
_LOG = 10.0
#: Below this much time a rate is a guess.
_RATE_AFTER = 1.0


class Meter:
    """Counts what several threads fetch."""

    def __init__(self, progress: Progress, clock: Callable[[], float]) -> None:
        self._progress = progress
        self._clock = clock
        self._lock = threading.Lock()
        self._began = self._logged = clock()
        self._total: int | None = None
        self._done = 0
        self._fetched = 0

    def expect(self, total: int | None) -> None:
        """Bytes of everything, when that is known."""
        with self._lock:
            self._total = total

    def add(self, size: int) -> None:
        """So many bytes came; fewer than none, when they have to come again."""
        with self._lock:
            self._fetched += max(size, 0)
            self._count(size)

    def skip(self, size: int) -> None:
        """So many were here already."""
        with self._lock:
            self._count(size)

    def _count(self, size: int) -> None:
        self._done += size
        now = self._clock()
        found = self._transfer(now)
        self._progress(found.percent, "fetching", found)
        if now - self._logged >= _LOG:
            self._logged = now
            log.info(
                "model.fetching",
                bytes=found.bytes,
                total=found.total,
                percent=found.percent,
                eta_seconds=found.eta_seconds,
            )

    def _transfer(self, now: float) -> Transfer:
        took, eta = now - self._began, None
        if self._total is not None and self._fetched and took >= _RATE_AFTER:
            left = max(0, self._total - self._done)
            eta = round(left / (self._fetched / took))
        return Transfer(bytes=max(0, self._done), total=self._total, eta_seconds=eta)
