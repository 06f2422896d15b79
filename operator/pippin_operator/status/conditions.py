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
#: Conditions that move with every start and are told by the others.
_QUIET = frozenset({"Progressing", "Scheduled", "ModelAvailable", "WorkloadReady"})


def flips(old: Iterable[Mapping[str, Any]], new: Iterable[Mapping[str, Any]]) -> list[Flip]:
    """What is worth an event: news that is bad, and what turned good again."""
    before = {condition["type"]: condition for condition in old}
    found = []
    for condition in new:
        kind, status = condition["type"], condition["status"]
        known = before.get(kind)
        if known is not None and known["status"] == status:
            continue
        bad = status == ("True" if kind in _BAD_WHEN_TRUE else "False")
        first = known is None
        if (first and not bad) or (not bad and kind in _QUIET):
            continue
        found.append(Flip(kind, condition["reason"], condition["message"], bad))
    return found


def _cut(message: str) -> str:
    return message if len(message) <= _MOST else message[: _MOST - 1] + "…"
