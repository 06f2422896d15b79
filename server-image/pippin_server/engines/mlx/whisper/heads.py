"""Which heads of a decoder look at what is being said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx

from .net import ALIGNMENT_HEADS, Head, Shape
from .vocabulary import generation


def alignment_heads(path: Path, shape: Shape) -> frozenset[Head]:
    """As generation_config.json or MLX's files tell; else all of the upper half of the layers,
    where most of them are. Raises ValueError."""
    layers, width = shape.decoder
    told: Any = generation(path).get(ALIGNMENT_HEADS) or _of_mlx(path)
    if not told:
        upper = range(layers // 2, layers)
        return frozenset((layer, head) for layer in upper for head in range(width))
    try:
        found = frozenset((int(layer), int(head)) for layer, head in told)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{ALIGNMENT_HEADS} are not pairs of layer and head") from error
    if not all(0 <= layer < layers and 0 <= head < width for layer, head in found):
        raise ValueError(f"{ALIGNMENT_HEADS} names heads that these weights do not have")
    return found


def _of_mlx(path: Path) -> list[Any]:
    for file in sorted(path.glob("*.safetensors")):
        arrays: Any = mx.load(str(file))
        if ALIGNMENT_HEADS in arrays:
            found: list[Any] = arrays[ALIGNMENT_HEADS].tolist()
            return found
    return []
