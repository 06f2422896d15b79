"""How requests fared, for those who ask afterwards: the last ones of this gateway, in memory.

Only names, numbers and our own words: no prompt, no key, no header.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pippin_edge.asgi import Scope
from pippin_edge.clock import SYSTEM, Clock
from pippin_edge.limits.claims import Claim, Verdict

from .traceparent import Context

#: Requests that are remembered, and hops of each.
REMEMBERED, MOST_HOPS = 2000, 32
#: What a client may have asked for as a model is its own text.
_MAX_NAME = 128


class Hop(NamedTuple):
    """One try at one replica. Times in monotonic seconds; `outcome`: a status, or how it failed."""

    model: str
    replica: str
    began: float
    ended: float
    outcome: str
    #: Its id in the request's trace.
    span: str = ""


class Passed(NamedTuple):
    """A model that could not answer, and why."""

    model: str
    reason: str


@dataclass(slots=True)
class Trace:
    """Noted while a request is on its way; `began` is monotonic."""

    began: float
    asked: str = ""
    #: What the client was told instead of an answer.
    said: str = ""
    #: Seconds without a replica to ask.
    waited: float = 0.0
    #: When limits were asked, and when they had answered.
    limits_took: tuple[float, float] | None = None
    #: None: nobody collects traces.
    context: Context | None = None
    limits: list[tuple[Claim, Verdict]] = field(default_factory=list)
    hops: list[Hop] = field(default_factory=list)
    passed_over: list[Passed] = field(default_factory=list)

    def limited(self, claims: Sequence[Claim], verdicts: Sequence[Verdict]) -> None:
        """What limits said of it."""
        self.limits += zip(claims, verdicts, strict=True)

    def hop(self, hop: Hop) -> None:
        """A try is over."""
        if len(self.hops) < MOST_HOPS:
            self.hops.append(hop)


class _Kept(NamedTuple):
    at: float
    path: str
    status: int
    seconds: float
    fields: dict[str, Any]
    trace: Trace


class Requests:
    """The last ones, by request id; of two with one id the later."""

    def __init__(self, clock: Clock = SYSTEM, most: int = REMEMBERED) -> None:
        self._clock = clock
        self._most = most
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    def keep(self, scope: Scope, status: int, seconds: float) -> None:
        """One is over. Those that named no model to anybody's key are not kept."""
        state = scope["state"]
        trace = state.get("trace")
        if trace is None:
            return
        if status >= 400:
            trace.said = state.get("said", "")
        request_id, kept = state["request_id"], self._kept
        now, fields = self._clock.wall(), state["log"]
        kept[request_id] = _Kept(now, scope["path"], status, seconds, fields, trace)
        kept.move_to_end(request_id)
        if len(kept) > self._most:
            kept.popitem(last=False)

    def told(self, request_id: str) -> dict[str, Any] | None:
        """In words and milliseconds; None: not known, or not any more."""
        kept = self._kept.get(request_id)
        if kept is None:
            return None
        fields, trace, failed = kept.fields, kept.trace, kept.status >= 400
        return {
            "request_id": request_id,
            "ended_at": datetime.fromtimestamp(kept.at, UTC),
            "path": kept.path,
            "key": fields.get("key"),
            "key_id": fields.get("key_id"),
            "model_asked": trace.asked[:_MAX_NAME],
            "model": fields.get("fallback") or fields.get("model"),
            "served_by": None if failed else fields.get("replica"),
            "status": kept.status,
            "error": _error(fields.get("error"), trace.said),
            "duration_ms": _ms(kept.seconds),
            "waited_ms": _ms(trace.waited) if trace.waited else None,
            "ttft_ms": fields.get("ttft_ms"),
            "tokens": {
                name: fields.get(f"{name}_tokens") for name in ("prompt", "completion", "cached")
            },
            "limits": [_limit(claim, verdict) for claim, verdict in trace.limits],
            "hops": [_hop(hop, trace.began) for hop in trace.hops],
            "passed_over": [passed._asdict() for passed in trace.passed_over],
        }


def _error(code: str | None, said: str) -> dict[str, str] | None:
    return {"code": code, "message": said} if code else None


def _limit(claim: Claim, verdict: Verdict) -> dict[str, Any]:
    owner, _, name = claim.owner.partition("/")
    return {
        "of": owner,
        "name": name,
        "kind": str(claim.kind),
        "limit": claim.limit,
        "wanted": claim.cost,
        "remaining": verdict.remaining,
        "refused_for_s": round(verdict.wait, 3) or None,
    }


def _hop(hop: Hop, began: float) -> dict[str, Any]:
    return {
        "model": hop.model,
        "replica": hop.replica,
        "after_ms": _ms(hop.began - began),
        "took_ms": _ms(hop.ended - hop.began),
        "outcome": hop.outcome,
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)
