"""What `promtool check metrics` says of an exposition, without promtool."""

from __future__ import annotations

import re
from collections.abc import Iterator

from prometheus_client.parser import text_string_to_metric_families

#: promlint's: https://github.com/prometheus/client_golang/tree/main/prometheus/testutil/promlint
_TYPES = {"counter", "gauge", "histogram", "summary", "untyped"}
_UNITS = {
    "ms": "seconds", "sec": "seconds", "secs": "seconds", "milliseconds": "seconds",
    "minutes": "seconds", "hours": "seconds", "mb": "bytes", "kb": "bytes", "gb": "bytes",
    "kilobytes": "bytes", "megabytes": "bytes", "percent": "ratio",
}  # fmt: skip


def problems(text: str) -> list[str]:
    return list(_problems(text))


def _problems(text: str) -> Iterator[str]:
    declared = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)
    helped = set(re.findall(r"^# HELP (\S+) \S", text, re.MULTILINE))
    for name, kind in declared:
        words = name.split("_")
        if name not in helped:
            yield f"{name}: no help text"
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            yield f"{name}: reserved character or upper case"
        if (kind == "counter") != name.endswith("_total"):
            yield f"{name}: _total is for counters, and counters have it"
        if kind in ("counter", "gauge") and name.endswith(("_count", "_sum", "_bucket")):
            yield f"{name}: a histogram's suffix on a {kind}"
        if _TYPES & set(words):
            yield f"{name}: its type is in its name"
        for word in _UNITS.keys() & set(words):
            yield f"{name}: say {_UNITS[word]} instead of {word}"
    known = {name for name, _ in declared}
    for family in text_string_to_metric_families(text):
        if not {family.name, f"{family.name}_total"} & known:
            yield f"{family.name}: no type"
