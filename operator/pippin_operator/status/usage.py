"""What a key has used, added up from what gateways tell. Pure.

Counts of a source only grow; the status remembers how far each was, so that nothing is counted
twice, whoever restarts: the sums and the marks are one write.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pippin_contract.usage import KeyUsage, ModelUsage

from ..keychain import stamp

#: Marks that are kept, the latest; and models that are told apart.
MOST_MARKS, MOST_MODELS = 256, 64
#: Where models are added up that are too many to tell apart.
OTHERS = "(others)"

_SUMS = {
    "requests": "requests",
    "errors": "errors",
    "promptTokens": "prompt_tokens",
    "completionTokens": "completion_tokens",
    "cachedTokens": "cached_tokens",
}


class Reading(NamedTuple):
    """What one source says of one key."""

    source: str
    used: KeyUsage


def derive(
    old: Mapping[str, Any], key_ids: Iterable[str], readings: Iterable[Reading], now: datetime
) -> dict[str, Any]:
    """`lastUsedAt` and `usage` of the status; `old` is the status as it is."""
    before: Mapping[str, Any] = old.get("usage") or {}
    marks = {(mark["source"], mark["model"]): mark for mark in before.get("counted", ())}
    models = {model["model"]: dict(model) for model in before.get("models", ())}
    last = {entry["id"]: entry["lastUsedAt"] for entry in before.get("keys", ())}
    today = now.strftime("%Y-%m-%d")
    tokens_today = before.get("tokensToday", 0) if before.get("window") == today else 0
    for source, used in readings:
        for key_id, at in used.ids.items():
            last[key_id] = max(_stamp(at), last.get(key_id, ""))
        for model in used.models:
            grown = _grown(model, marks.pop((source, model.model), {}))
            marks[source, model.model] = _mark(source, model)
            tokens_today += grown["promptTokens"] + grown["completionTokens"]
            _add(models, model, grown)
    usage = {
        **{name: sum(model[name] for model in models.values()) for name in _SUMS},
        "tokensToday": tokens_today,
        "window": today,
        "models": [models[name] for name in sorted(models)],
        "keys": [{"id": one, "lastUsedAt": last[one]} for one in key_ids if one in last],
        "counted": list(marks.values())[-MOST_MARKS:],
    }
    moments = [model["lastUsedAt"] for model in models.values()]
    return {"usage": usage, **({"lastUsedAt": max(moments)} if moments else {})}


def _grown(model: ModelUsage, mark: Mapping[str, Any]) -> dict[str, int]:
    """Since the mark. A source that lost some of what it knew has less than its mark."""
    return {name: max(0, getattr(model, told) - mark.get(name, 0)) for name, told in _SUMS.items()}


def _mark(source: str, model: ModelUsage) -> dict[str, Any]:
    sums = {name: getattr(model, told) for name, told in _SUMS.items()}
    return {"source": source, "model": model.model, **sums}


def _add(models: dict[str, dict[str, Any]], model: ModelUsage, grown: Mapping[str, int]) -> None:
    name = model.model
    if name not in models and len(models) >= MOST_MODELS:
        name = OTHERS
    sums = models.setdefault(name, {"model": name, "lastUsedAt": _stamp(0)})
    for sum_, by in grown.items():
        sums[sum_] = sums.get(sum_, 0) + by
    sums["lastUsedAt"] = max(sums["lastUsedAt"], _stamp(model.last_used_at))


def _stamp(unix: float) -> str:
    return stamp(datetime.fromtimestamp(unix, UTC))
