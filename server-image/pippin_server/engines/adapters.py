"""What a directory with a LoRA adapter says of itself: in PEFT's form, or in mlx_lm's.

Reads no weights. The two differ in names, in which side is which, and in what they call the scale.
"""

from __future__ import annotations

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .base import LoadFailed

CONFIG = "adapter_config.json"
#: The weights in each of the forms.
OF_PEFT, OF_MLX = "adapter_model.safetensors", "adapters.safetensors"
#: How many a model has at most.
MOST = 32
#: What PEFT calls things that are beyond two matrices for a module.
_MORE = (
    *("use_dora", "modules_to_save", "fan_in_fan_out", "lora_bias", "alora_invocation_tokens"),
    *("target_parameters", "trainable_token_indices"),
)
#: No engine is asked for wider ones.
_WIDEST = 512


class Adaptable(ABC):
    """An engine whose model also answers by adapters."""

    #: Directories of those that are there from the start, by name. Set before `load`.
    adapters: Mapping[str, Path]

    @abstractmethod
    async def adapt(self, name: str, path: Path) -> None:
        """One more, while others are answered. Raises LoadFailed."""

    @abstractmethod
    async def forget(self, name: str) -> None:
        """Nobody begins with it any more; answers on their way end by it."""


@contextmanager
def about(name: str) -> Iterator[None]:
    """What fails in here is said to be of this adapter."""
    try:
        yield
    except LoadFailed as failure:
        words = f"adapter '{name}': {failure.message}"
        raise LoadFailed(failure.reason, words, permanent=failure.permanent) from failure


@dataclass(frozen=True, slots=True)
class Described:
    """`rank`: the widest that it has; `scales` where some modules have their own, by PEFT's
    patterns of their names."""

    weights: Path
    rank: int
    peft: bool
    #: mlx_lm says the scale itself, PEFT a number that the rank divides.
    alpha: float
    by_root: bool = False
    alphas: Mapping[str, float] = field(default_factory=dict)

    def scale(self, module: str, rank: int) -> float:
        """Of a module whose matrices have this rank."""
        if not self.peft:
            return self.alpha
        alpha = next((a for name, a in self.alphas.items() if _is(module, name)), self.alpha)
        return alpha / (math.sqrt(rank) if self.by_root else rank)


def _is(module: str, pattern: str) -> bool:
    try:
        return re.match(rf"(.*\.)?({pattern})$", module) is not None
    except re.error:
        return False


def describe(directory: Path) -> Described:
    """Raises LoadFailed for what is no LoRA adapter, or one that asks for more than that."""
    told = _config(directory)
    try:
        if "peft_type" in told:
            return _of_peft(told, directory)
        return _of_mlx(told, directory)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise unusable(f"{CONFIG}: {type(error).__name__}: {error}") from error


def unusable(message: str) -> LoadFailed:
    return LoadFailed("ModelCorrupted", message)


def _config(directory: Path) -> dict[str, Any]:
    try:
        found = json.loads((directory / CONFIG).read_bytes())
    except FileNotFoundError as error:
        raise unusable(f"{CONFIG}: not here") from error
    except (OSError, ValueError) as error:
        raise unusable(f"{CONFIG}: not valid JSON, or not to be read") from error
    if not isinstance(found, dict):
        raise unusable(f"{CONFIG}: no JSON object")
    return found


def _of_peft(told: Mapping[str, Any], directory: Path) -> Described:
    if told["peft_type"] != "LORA":
        raise unusable(f"{CONFIG}: peft_type {told['peft_type']!r} is not served, LORA is")
    more = [name for name in _MORE if told.get(name)]
    if told.get("bias", "none") != "none":
        more.append("bias")
    if more:
        raise unusable(f"{CONFIG}: {', '.join(more)}: not served, train it without")
    ranks = [told["r"], *(told.get("rank_pattern") or {}).values()]
    return Described(
        _weights(directory, OF_PEFT),
        _rank(max(ranks)),
        peft=True,
        alpha=float(told["lora_alpha"]),
        by_root=bool(told.get("use_rslora")),
        alphas={name: float(a) for name, a in (told.get("alpha_pattern") or {}).items()},
    )


def _of_mlx(told: Mapping[str, Any], directory: Path) -> Described:
    kind = told.get("fine_tune_type", "lora")
    if kind != "lora":
        raise unusable(f"{CONFIG}: fine_tune_type {kind!r} is not served, lora is")
    parameters = told["lora_parameters"]
    scale = float(parameters["scale"])
    return Described(_weights(directory, OF_MLX), _rank(parameters["rank"]), False, scale)


def _rank(told: Any) -> int:
    rank = int(told)
    if not 1 <= rank <= _WIDEST:
        raise unusable(f"{CONFIG}: a rank of {rank}, and 1 to {_WIDEST} are served")
    return rank


def _weights(directory: Path, name: str) -> Path:
    path = directory / name
    if not path.is_file():
        raise unusable(f"{name}: not here")
    return path
