"""The kinds of objects that the gateway follows, and all that it knows of them at a moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["apikeys", "modeldeployments", "pods"]
KINDS: tuple[Kind, ...] = ("apikeys", "modeldeployments", "pods")


@dataclass(frozen=True, slots=True)
class Known:
    """Objects as they were parsed, by kind and by namespace and name; and until when each kind was
    current (Unix seconds)."""

    objects: Mapping[Kind, Mapping[tuple[str, str], Any]]
    current_at: Mapping[Kind, float]
