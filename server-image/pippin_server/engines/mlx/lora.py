"""The weights of one LoRA adapter, in the form that this engine computes with, and the modules of
the model that they belong to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..adapters import Described, unusable
from ..base import LoadFailed
from .loading import as_load_failures

_PEFT = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<side>[AB])(\.\w+)?\.weight\Z")
_MLX = re.compile(r"(?P<module>.+)\.lora_(?P<side>[ab])\Z")
#: Where mlx_lm keeps the text's part of a model that also sees, and others do not, or before.
_TEXT = "language_model."
#: What Hugging Face calls it in others, where it has a module of its own for it here.
_WORDS = "model.text_model."


@dataclass(frozen=True, slots=True)
class Part:
    """What is added to one module's answer to x: (x @ a) @ b. The scale is in `b`."""

    a: mx.array
    b: mx.array

    @property
    def rank(self) -> int:
        return int(self.a.shape[1])


def parts(told: Described) -> dict[str, Part]:
    """By the modules' names in the file. Raises LoadFailed."""
    with as_load_failures():
        tensors: Any = mx.load(str(told.weights))
    sides: dict[str, dict[str, mx.array]] = {}
    for name, tensor in tensors.items():
        found = (_PEFT if told.peft else _MLX).match(name)
        if found is None or tensor.ndim != 2:
            raise unusable(f"{told.weights.name}: {name}: no matrix of a LoRA, which are served")
        turned = tensor.T if told.peft else tensor
        sides.setdefault(found["module"], {})[found["side"].lower()] = turned
    if not sides:
        raise unusable(f"{told.weights.name}: no weights are in it")
    return {name: _part(told, name, pair) for name, pair in sides.items()}


def _part(told: Described, name: str, pair: Mapping[str, mx.array]) -> Part:
    if len(pair) < 2:
        raise unusable(f"{told.weights.name}: {name}: one of its two matrices is missing")
    a, b = pair["a"].astype(mx.float32), pair["b"].astype(mx.float32)
    if a.shape[1] != b.shape[0]:
        raise unusable(f"{told.weights.name}: {name}: ranks {a.shape[1]} and {b.shape[0]} differ")
    return Part(a, b * told.scale(name, int(a.shape[1])))


def placed(model: Any, found: Mapping[str, Part]) -> dict[str, Part]:
    """By the names of the model's own modules. Raises LoadFailed for an adapter of another one."""
    modules = dict(model.named_modules())
    return {_place(modules, name, part): part for name, part in found.items()}


def _place(modules: Mapping[str, Any], name: str, part: Part) -> str:
    place = next((one for one in _spellings(name) if one in modules), None)
    if place is None:
        raise mismatch(f"this model has no module {name}")
    module = getattr(modules[place], "plain", modules[place])
    if not isinstance(module, nn.Linear | nn.QuantizedLinear):
        raise mismatch(f"{name} is a {type(module).__name__}, and linear ones are served")
    here, there = shape(module), (int(part.a.shape[0]), int(part.b.shape[1]))
    if here != there:
        raise mismatch(
            f"{name} is for {there[0]} x {there[1]}, this model has {here[0]} x {here[1]}"
        )
    return place


def _spellings(name: str) -> Iterator[str]:
    yield name
    yield _TEXT + name
    for beginning in (_TEXT, "model." + _TEXT, _WORDS):
        if name.startswith(beginning):
            rest = name.removeprefix(beginning)
            yield from (rest, "model." + rest, f"{_TEXT}model.{rest}")


def shape(module: Any) -> tuple[int, int]:
    """How many numbers go into a linear module, and how many come out."""
    out, width = module.weight.shape
    if isinstance(module, nn.QuantizedLinear):
        width = module.scales.shape[-1] * module.group_size
    return int(width), int(out)


def mismatch(message: str) -> LoadFailed:
    return LoadFailed("AdapterMismatch", f"made for another model: {message}")
