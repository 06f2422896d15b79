"""How old what is known of each kind is: nothing while it is followed, else the time since then.

The age is what the wall clock or the monotonic one says, whichever is more: neither a clock that is
set back nor a machine that slept makes anything younger than it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from pippin_edge.clock import Clock

from .kinds import KINDS, Kind


class Freshness:
    """Of every kind."""

    def __init__(self, clock: Clock, most: float = math.inf) -> None:
        self._clock = clock
        #: Seconds: what is older may not be used.
        self.most = most
        #: Kinds that are not followed, and until when they were (Unix seconds).
        self.stale_since: dict[Kind, float] = {}
        self._until: dict[Kind, float] = {}

    def followed(self, kind: Kind) -> bool:
        """All changes arrive from now on; whether that is new."""
        self._until.pop(kind, None)
        return self.stale_since.pop(kind, None) is not None

    def lost(self, kind: Kind) -> bool:
        """What is known was current until now; whether that is new."""
        if kind in self.stale_since:
            return False
        self.since(kind, self._clock.wall())
        return True

    def listed(self, kind: Kind) -> None:
        """All of it is known anew, and it is not followed yet."""
        if kind in self.stale_since:
            self.since(kind, self._clock.wall())

    def since(self, kind: Kind, wall: float) -> None:
        """What is known was current until then."""
        self.stale_since[kind] = wall
        self._until[kind] = self._clock.monotonic() - (self._clock.wall() - wall)

    def age(self) -> float:
        """Seconds, of the oldest kind."""
        if not self.stale_since:
            return 0.0
        by_wall = self._clock.wall() - min(self.stale_since.values())
        return max(0.0, by_wall, self._clock.monotonic() - min(self._until.values()))

    @property
    def expired(self) -> bool:
        """Whether a kind was not followed for so long that what is known may not be used."""
        return bool(self.stale_since) and self.age() > self.most

    def current_at(self) -> Mapping[Kind, float]:
        """When each kind was last current, in Unix seconds: now, where it is followed."""
        now = self._clock.wall()
        return {kind: self.stale_since.get(kind, now) for kind in KINDS}
