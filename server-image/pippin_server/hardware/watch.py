"""What is known of the hardware while a server runs. Asking costs nothing: it is looked at aside,
and what was found last is told meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable

from .detect import detect
from .facts import Hardware

#: Seconds after which what was found is looked up again, when someone asks.
_FRESH = 10.0


class Watch:
    """`look` blocks, and never raises."""

    def __init__(self, clock: Callable[[], float], look: Callable[[], Hardware] = detect) -> None:
        self._clock = clock
        self._look = look
        self._found: Hardware | None = None
        self._looked_at = 0.0
        self._looking = threading.Lock()

    def now(self) -> Hardware | None:
        """None: the first look is not over."""
        stale = self._found is None or self._clock() - self._looked_at > _FRESH
        if stale and self._looking.acquire(blocking=False):
            threading.Thread(target=self._refresh, name="pippin-hardware", daemon=True).start()
        return self._found

    def _refresh(self) -> None:
        try:
            self._found = self._look()
            self._looked_at = self._clock()
        finally:
            self._looking.release()
