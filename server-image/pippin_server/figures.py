"""What a person asks a running server: how fast it answers, how much it takes, since when."""

from __future__ import annotations

import math
import os
import resource
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Answers whose times are remembered.
SAMPLES = 1000
#: Seconds over which throughput is told.
WINDOW = 300
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Memory:
    """Of this process, in bytes. An engine's own processes are not in it."""

    current: int
    peak: int


def memory() -> Memory:
    """As the kernel counts it. Where it tells no current size, that is the peak."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return Memory(peak, peak)
    return Memory(pages * os.sysconf("SC_PAGE_SIZE"), peak)


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds; 0 while there is no sample."""

    p50: float
    p95: float
    p99: float
    samples: int


class Figures:
    """Counted as answers end; looked at when somebody asks. `clock` is monotonic seconds."""

    def __init__(self, clock: Callable[[], float], measure: Callable[[], Memory] = memory) -> None:
        self._clock = clock
        self._measure = measure
        self._began = clock()
        self._initial = measure()
        self._took: deque[float] = deque(maxlen=SAMPLES)
        #: [second, answers in it], oldest first, none older than the window.
        self._seconds: deque[list[int]] = deque()
        self.requests = 0
        #: When the last answer ended; None: there was none.
        self.last_at: float | None = None

    def answered(self, seconds: float) -> None:
        """A request for the model is over, well or not."""
        now = self._clock()
        self.requests += 1
        self.last_at = now
        self._took.append(seconds)
        self._forget(now)
        if self._seconds and self._seconds[-1][0] == int(now):
            self._seconds[-1][1] += 1
        else:
            self._seconds.append([int(now), 1])

    @property
    def uptime(self) -> float:
        return self._clock() - self._began

    def latency(self) -> Latency:
        took = sorted(self._took)
        p50, p95, p99 = (round(_percentile(took, share) * 1000, 3) for share in (0.5, 0.95, 0.99))
        return Latency(p50=p50, p95=p95, p99=p99, samples=len(took))

    def per_second(self) -> float:
        """Over the window, or the time since the start when that is shorter."""
        self._forget(self._clock())
        answers = sum(count for _, count in self._seconds)
        return answers / max(1.0, min(WINDOW, self.uptime))

    def memory_mb(self) -> dict[str, float]:
        now = self._measure()
        return {
            "current_mb": round(now.current / MIB, 1),
            "peak_mb": round(now.peak / MIB, 1),
            "initial_mb": round(self._initial.current / MIB, 1),
            "growth_mb": round((now.current - self._initial.current) / MIB, 1),
        }

    def _forget(self, now: float) -> None:
        while self._seconds and self._seconds[0][0] <= now - WINDOW:
            self._seconds.popleft()


def _percentile(sorted_values: Sequence[float], share: float) -> float:
    """By the nearest rank."""
    if not sorted_values:
        return 0.0
    return sorted_values[math.ceil(len(sorted_values) * share) - 1]
