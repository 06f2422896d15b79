"""Kubernetes durations and quantities as numbers."""

from __future__ import annotations

import re
from decimal import Decimal

#: One pattern for the CRD schema and the parser: `90s`, `1h30m`, `100ms`.
DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"
#: A non-negative Kubernetes quantity: `24Gi`, `500m`, `1.5`, `2G`.
QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"

_DURATION = re.compile(DURATION_PATTERN, re.ASCII)
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)([A-Za-z]*)", re.ASCII)
_SCALE = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate("kMGTPE", start=1)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", start=1)},
}


def seconds(duration: str) -> float:
    """`1h30m` -> 5400.0. Raises ValueError on anything else than digits with ms, s, m, h."""
    if not _DURATION.fullmatch(duration):
        raise ValueError(f"{duration!r} is not a duration: write 90s, 5m or 1h30m")
    return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(duration))


def quantity(text: str) -> Decimal:
    """`1.5Gi` -> 1610612736, `500m` -> 0.5. Raises ValueError on anything that is no quantity."""
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2] not in _SCALE:
        raise ValueError(f"{text!r} is not a quantity: write 500m, 2 or 24Gi")
    return Decimal(match[1]) * _SCALE[match[2]]
