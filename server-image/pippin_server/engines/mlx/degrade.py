"""What the engine takes on after memory ran out: half as many requests at once for each time, and
no prompt cache. Comes back by itself, step by step, while nothing runs out. Knows nothing of MLX.
"""

from __future__ import annotations

from collections.abc import Callable

from ..base import Strain

#: Seconds without trouble for one step back.
QUIET = 60.0


class Degrade:
    """Written on the owning thread; `state` may be asked from others."""

    def __init__(self, batch: int, clock: Callable[[], float], quiet: float = QUIET) -> None:
        self._full = batch
        self._clock = clock
        self._quiet = quiet
        self._level = 0
        self._since = 0.0
        self._times = 0
        self._freed = 0

    def ran_out(self, freed: int) -> None:
        """`freed`: bytes that giving up what could be given up has brought."""
        level = self._now() + 1
        self._level = min(level, max(1, (self._full - 1).bit_length()))
        self._since = self._clock()
        self._times += 1
        self._freed += freed

    @property
    def batch(self) -> int:
        """Requests at once."""
        return max(1, self._full >> self._now())

    @property
    def active(self) -> bool:
        return self._now() > 0

    def state(self) -> Strain:
        return Strain(self.active, self.batch, self._full, self._times, self._freed)

    def _now(self) -> int:
        if not self._level:
            return 0
        return max(0, self._level - int((self._clock() - self._since) // self._quiet))
