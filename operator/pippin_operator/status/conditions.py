"""Conditions: built without times, then laid over the old ones so that only changes move a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["True", "False", "Unknown"]
#: Longer messages are cut: the schema allows so much.
_MOST = 1024


@dataclass(frozen=True)
class Verdict:
    """One condition as judged now."""

    type: str
    status: Status
    reason: str
    message: str = ""


def yes(kind: str, reason: str, message: str = "") -> Verdict:
    return Verdict(kind, "True", reason, message)


def no(kind: str, reason: str, message: str) -> Verdict:
    return Verdict(kind, "False", reason, message)


def unknown(kind: str, reason: str, message: str) -> Verdict:
    return Verdict(kind, "Unknown", reason, message)


def laid_over(
    old: Iterable[Mapping[str, Any]], verdicts: Iterable[Verdict], generation: int, now: str
) -> list[dict[str, Any]]:
    """The list for the status. A time moves only when its condition's status does."""
    before = {condition["type"]: condition for condition in old}
    result = []
    for verdict in verdicts:
        known = before.get(verdict.type)
        moved = known is None or known["status"] != verdict.status
        result.append(
            {
                "type": verdict.type,
                "status": verdict.status,
                "reason": verdict.reason,
                "message": _cut(verdict.message),
                "observedGeneration": generation,
                "lastTransitionTime": now
                if moved or known is None
                else known["lastTransitionTime"],
            }
        )
    return result


@dataclass(frozen=True)
class Flip:
    """A condition that changed: what an event tells."""

    type: str
    reason: str
    message: str
    bad: bool


#: Conditions whose True is the bad news.
_BAD_WHEN_TRUE = frozenset({"Degraded"})
#: Told by `Ready`, whose reason is theirs.
_UNTOLD = frozenset({"WorkloadReady"})
#: Conditions that turn good with every start.
_QUIET_WHEN_GOOD = frozenset({"Progressing", "Scheduled", "ModelAvailable"})
#: The way of every start, and what an installation is like.
_ORDINARY = frozenset(
    {"Loading", "Pending", "RollingOut", "Settled", "MonitoringAPIMissing", "Disabled"}
)
#: What the user asked for.
_ASKED_FOR = frozenset({"Suspended", "ScaledToZero", "Disabled"})


def flips(old: Iterable[Mapping[str, Any]], new: Iterable[Mapping[str, Any]]) -> list[Flip]:
    """What is worth an event: bad news, and what turned good again. One for each reason."""
    before = {condition["type"]: condition for condition in old}
    found: dict[str, Flip] = {}
    for condition in new:
        kind, reason = condition["type"], condition["reason"]
        known = before.get(kind)
        if kind in _UNTOLD or (known is not None and known["status"] == condition["status"]):
            continue
        bad = condition["status"] == ("True" if kind in _BAD_WHEN_TRUE else "False")
        if _worth_telling(kind, reason, first=known is None, bad=bad):
            warns = bad and reason not in _ASKED_FOR
            found.setdefault(reason, Flip(kind, reason, condition["message"], warns))
    return list(found.values())


def _worth_telling(kind: str, reason: str, *, first: bool, bad: bool) -> bool:
    if bad:
        # A replica that served and now loads again is news.
        return reason not in _ORDINARY or (kind == "Ready" and not first)
    return not first and kind not in _QUIET_WHEN_GOOD


def _cut(message: str) -> str:
    return message if len(message) <= _MOST else message[: _MOST - 1] + "…"
