"""Meters in this process' memory: of several processes each counts for itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..clock import SYSTEM, Clock
from .claims import Claim, Kind, Verdict, meter_name
from .meters import SECONDS, Day, Flight, Mark, Window

_METERS: dict[Kind, type[Window] | type[Day] | type[Flight]] = {
    Kind.RPM: Window,
    Kind.TPM: Window,
    Kind.TOKENS_PER_DAY: Day,
    Kind.CONCURRENCY: Flight,
}


_Meter = Window | Day | Flight
#: A claim, what counts it, and what the time is there.
_Found = tuple[Claim, _Meter, float]


class Receipt(NamedTuple):
    """What a request has taken, to be corrected when its true cost is known."""

    taken: tuple[tuple[Claim, _Meter, Mark], ...]


class MemoryStore:
    """One meter for each limit; those that stand at nothing for a minute are forgotten."""

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        #: By kind and owner: names are made for who asks for all of them.
        self._meters: dict[tuple[Kind, str], _Meter] = {}
        self._swept = clock.monotonic()

    def __len__(self) -> int:
        return len(self._meters)

    def take(self, claims: Sequence[Claim]) -> tuple[list[Verdict], Receipt | None]:
        """All claims, or, when one does not fit, none. The verdicts are in the claims' order."""
        found = self._found(claims)
        waits = [meter.wait(claim.limit, claim.cost, now) for claim, meter, now in found]
        receipt = None if any(waits) else _taken(found)
        return [
            Verdict(claim.limit, max(0, claim.limit - meter.used), meter.reset_after(now), wait)
            for (claim, meter, now), wait in zip(found, waits, strict=True)
        ], receipt

    def note(self, claims: Sequence[Claim]) -> Receipt:
        """Take them, whether they fit or not: somebody else has said that they do."""
        found = self._found(claims)
        for _, meter, now in found:
            meter.expire(now)
        return _taken(found)

    def settle(self, receipt: Receipt, tokens: Mapping[str, int]) -> None:
        """The request is over and took so many tokens of each owner's. To be called once."""
        for claim, meter, mark in receipt.taken:
            if by := claim.settled(tokens) - claim.cost:
                meter.correct(mark, by)

    def since(self, moment: float) -> list[tuple[str, float, int]]:
        """What the windows took in since that moment: meter, age in seconds, cost."""
        now = self._clock.monotonic()
        return [
            (meter_name(*of), max(0.0, now - at), int(cost))
            for of, meter in self._meters.items()
            if isinstance(meter, Window)
            for at, cost in meter.since(moment)
        ]

    def under_way(self) -> dict[str, int]:
        """What each meter of requests under way stands at."""
        meters = self._meters.items()
        return {meter_name(*of): meter.used for of, meter in meters if isinstance(meter, Flight)}

    def _found(self, claims: Sequence[Claim]) -> list[_Found]:
        now, found = self._clock.monotonic(), []
        if now - self._swept > SECONDS:
            self._sweep()
        for claim in claims:
            of = claim.kind, claim.owner
            meter = self._meters.get(of)
            if meter is None:
                meter = self._meters[of] = _METERS[claim.kind]()
            # A day is the calendar's; everything else must not go back.
            at = self._clock.wall() if claim.kind is Kind.TOKENS_PER_DAY else now
            found.append((claim, meter, at))
        return found

    def _sweep(self) -> None:
        now = self._swept = self._clock.monotonic()
        for of, meter in list(self._meters.items()):
            meter.expire(self._clock.wall() if isinstance(meter, Day) else now)
            if not meter.used and not (isinstance(meter, Window) and meter.since(now - SECONDS)):
                del self._meters[of]


def _taken(found: list[_Found]) -> Receipt:
    return Receipt(
        tuple(
            [(claim, meter, meter.add(claim.limit, claim.cost, now)) for claim, meter, now in found]
        )
    )
