"""What can be said of a directory of weights without an engine."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: The file that makes a directory a pipeline of several networks, and those of them that are read.
PIPELINE = "model_index.json"
PARTS = ("text_encoder", "text_encoder_2", "unet", "vae")
#: Bytes of a number, by safetensors' names of floats; the rest is taken as it lies.
_FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
#: safetensors itself refuses longer headers.
_MAX_HEADER = 100_000_000


@dataclass(frozen=True, slots=True)
class Tensor:
    """`width`: bytes of one of its floats; 0: it holds none."""

    numbers: int
    bytes: int
    width: int


def files(model: Path) -> list[Path]:
    """Those that are read."""
    if (model / PIPELINE).is_file():
        return [file for part in PARTS for file in chosen(model / part)]
    return sorted(model.glob("*.safetensors"))


def chosen(part: Path) -> list[Path]:
    """Of a network of a pipeline, which may be there several times: `model.fp16.safetensors` is
    taken where there is no `model.safetensors`."""
    found = sorted(part.glob("*.safetensors"))
    whole = [file for file in found if "." not in file.stem]
    return whole or [file for file in found if ".fp16" in file.stem]


def size(model: Path) -> int:
    """Bytes of the weights on disk."""
    return sum(path.stat().st_size for path in files(model))


def tensors(model: Path) -> Iterator[Tensor]:
    """As the headers describe them; files that are no such are left to whoever judges them."""
    for path in files(model):
        yield from within(path)


def within(file: Path) -> Iterator[Tensor]:
    """The same of one file."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        yield from map(_tensor, _header(file).values())


def _header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(min(length, _MAX_HEADER)))
    header.pop("__metadata__", None)
    return header


def _tensor(told: Any) -> Tensor:
    begin, end = told["data_offsets"]
    return Tensor(math.prod(told["shape"]), end - begin, _FLOATS.get(told["dtype"], 0))
