"""Whether a live object is as wanted: every field that we want is there, with our value. Pure.

What others add (defaults of the API server, labels, sidecars) is theirs. A field that we no longer
want is noticed by the manifest's hash, which is one of the fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pippin_contract.units import quantity

_QUANTITIES = frozenset({"requests", "limits", "emptyDir"})


def first_difference(wanted: Any, live: Any, path: str = "") -> str | None:
    """The path of the first field that is not as wanted, or None."""
    if isinstance(wanted, Mapping):
        return _of_mapping(wanted, live, path)
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        return _of_list(wanted, live, path)
    if wanted == live or _same_quantity(wanted, live, path):
        return None
    return path or "."


def _of_mapping(wanted: Mapping[str, Any], live: Any, path: str) -> str | None:
    if not isinstance(live, Mapping):
        return path or "."
    for key, value in wanted.items():
        found = first_difference(value, live.get(key), f"{path}.{key}")
        if found is not None:
            return found
    return None


def _of_list(wanted: Sequence[Any], live: Any, path: str) -> str | None:
    if not isinstance(live, Sequence) or isinstance(live, str):
        return path or "."
    names, live_by_name = _by_name(wanted), _by_name(live)
    if names is not None and live_by_name is not None:
        return _of_mapping(names, live_by_name, path)
    if len(wanted) != len(live):
        return path or "."
    for index, (one, other) in enumerate(zip(wanted, live, strict=True)):
        found = first_difference(one, other, f"{path}[{index}]")
        if found is not None:
            return found
    return None


def _by_name(items: Sequence[Any]) -> dict[str, Any] | None:
    """Named items by name, as Kubernetes merges them; None when they have no unique names."""
    named = {item["name"]: item for item in items if isinstance(item, Mapping) and "name" in item}
    return named if items and len(named) == len(items) else None


def _same_quantity(wanted: Any, live: Any, path: str) -> bool:
    """The API server writes 1024Mi as 1Gi."""
    if not _QUANTITIES.intersection(path.split(".")):
        return False
    try:
        return quantity(str(wanted)) == quantity(str(live))
    except ValueError:
        return False
