"""Meters in this process' memory: of several processes each counts for itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..clock import SYSTEM, Clock
from .claims import Claim, Kind, Verdict
from .meters import SECONDS, Day, Flight, Mark, Window

_METERS: dict[Kind, type[Window] | type[Day] | type[Flight]] = {
    Kind.RPM: Window,
    Kind.TPM: Window,
    Kind.TOKENS_PER_DAY: Day,
    Kind.CONCURRENCY: Flight,
}


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a request has taken, to be corrected when its true cost is known."""

    taken: tuple[tuple[Claim, Window | Day | Flight, Mark], ...]


class MemoryStore:
    """One meter for each limit; those that stand at nothing for a minute are forgotten."""

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self._meters: dict[str, Window | Day | Flight] = {}
        self._swept = clock.monotonic()

    def __len__(self) -> int:
        return len(self._meters)

    def take(self, claims: Sequence[Claim]) -> tuple[list[Verdict], Receipt | None]:
        """All claims, or, when one does not fit, none. The verdicts are in the claims' order."""
        found = [(claim, self._meter(claim)) for claim in claims]
        waits = [meter.wait(claim.limit, claim.cost, self._now(claim)) for claim, meter in found]
        receipt = None if any(waits) else self.note(claims)
        return [
            Verdict(
                limit=claim.limit,
                remaining=max(0, claim.limit - meter.used),
                reset_after=meter.reset_after(self._now(claim)),
                wait=wait,
            )
            for (claim, meter), wait in zip(found, waits, strict=True)
        ], receipt

    def note(self, claims: Sequence[Claim]) -> Receipt:
        """Take them, whether they fit or not: somebody else has said that they do."""
        return Receipt(tuple((claim, *self._added(claim)) for claim in claims))

    def settle(self, receipt: Receipt, tokens: Mapping[str, int]) -> None:
        """The request is over and took so many tokens of each owner's. To be called once."""
        for claim, meter, mark in receipt.taken:
            if by := claim.settled(tokens) - claim.cost:
                meter.correct(mark, by)

    def since(self, moment: float) -> list[tuple[str, float, int]]:
        """What the windows took in since that moment: meter, age in seconds, cost."""
        now = self._clock.monotonic()
        return [
            (name, max(0.0, now - at), int(cost))
            for name, meter in self._meters.items()
            if isinstance(meter, Window)
            for at, cost in meter.since(moment)
        ]

    def under_way(self) -> dict[str, int]:
        """What each meter of requests under way stands at."""
        meters = self._meters.items()
        return {name: meter.used for name, meter in meters if isinstance(meter, Flight)}

    def _added(self, claim: Claim) -> tuple[Window | Day | Flight, Mark]:
        meter, now = self._meter(claim), self._now(claim)
        meter.expire(now)
        return meter, meter.add(claim.limit, claim.cost, now)

    def _now(self, claim: Claim) -> float:
        """A day is the calendar's; everything else must not go back."""
        by_calendar = claim.kind is Kind.TOKENS_PER_DAY
        return self._clock.wall() if by_calendar else self._clock.monotonic()

    def _meter(self, claim: Claim) -> Window | Day | Flight:
        if self._clock.monotonic() - self._swept > SECONDS:
            self._sweep()
        meter = self._meters.get(claim.meter)
        if meter is None:
            meter = self._meters[claim.meter] = _METERS[claim.kind]()
        return meter

    def _sweep(self) -> None:
        now = self._swept = self._clock.monotonic()
        for name, meter in list(self._meters.items()):
            meter.expire(self._clock.wall() if isinstance(meter, Day) else now)
            if not meter.used and not (isinstance(meter, Window) and meter.since(now - SECONDS)):
                del self._meters[name]
