"""What configs say that can be done in one way only here. Needs no MLX."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def config(path: Path) -> dict[str, Any]:
    """Raises ValueError naming the file, and OSError."""
    found = json.loads(path.read_bytes())
    if not isinstance(found, dict):
        raise ValueError(f"{path.parent.name}/{path.name} is no object")
    return found


def expect(told: Mapping[str, Any], only: Mapping[str, Any]) -> None:
    """Raises ValueError naming a field that is there and says something else."""
    for name, known in only.items():
        if told.get(name, known) != known:
            raise ValueError(f"{name} {told[name]!r} is not known here, only {known!r}")
