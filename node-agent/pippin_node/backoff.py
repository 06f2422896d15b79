"""How long a container waits before it is started again. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """The kubelet's: at once, then 10 s, 20 s … 5 min; forgotten after 10 minutes of running."""

    base: float = 10
    most: float = 300
    reset: float = 600

    def crashes(self, before: int, ran: float) -> int:
        """Ends in a row, this one (after `ran` seconds) counted."""
        return 1 if ran >= self.reset else before + 1

    def delay(self, crashes: int) -> float:
        """Seconds between the end and the next start."""
        if crashes <= 1:
            return 0
        return float(min(self.base * 2.0 ** min(crashes - 2, 32), self.most))
