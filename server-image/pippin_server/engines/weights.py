"""What can be said of a directory of weights without an engine."""

from __future__ import annotations

from pathlib import Path


def size(model: Path) -> int:
    """Bytes of the weights on disk."""
    return sum(path.stat().st_size for path in model.glob("*.safetensors"))
