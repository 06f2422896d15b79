"""What every family of models that see has in common: what a picture becomes, before and after its
pixels are looked at."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ...base import Shown
from .resizing import Pixels

#: Something was computed; last what the language model reads, tokens x numbers.
Steps = Generator[None, None, mx.array]


@dataclass(frozen=True, slots=True)
class Plan:
    """How a picture is cut up: in so many rows and columns of tiles, and it as a whole behind them.
    Without any: only as a whole. `tokens`: that the language model reads of it."""

    rows: int
    columns: int
    tokens: int

    @property
    def tiles(self) -> int:
        return self.rows * self.columns + 1


@dataclass(frozen=True, slots=True)
class Levels:
    """From bytes to the numbers that a tower was trained with."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    scale: float

    @classmethod
    def of(
        cls, told: Mapping[str, Any], mean: Sequence[float], deviation: Sequence[float]
    ) -> Levels:
        """As a preprocessor's config says; `mean` and `deviation` where it does not."""
        if not (told.get("do_rescale", True) and told.get("do_normalize", True)):
            raise ValueError("a preprocessor that leaves numbers as they are is not known here")
        return cls(
            tuple(told.get("image_mean") or mean),
            tuple(told.get("image_std") or deviation),
            float(told.get("rescale_factor") or 1 / 255),
        )

    def __call__(self, tile: Pixels) -> mx.array:
        numbers = tile.astype(np.float32) * np.float32(self.scale)
        numbers -= np.array(self.mean, dtype=np.float32)
        return mx.array(numbers / np.array(self.deviation, dtype=np.float32))


class Eyes(ABC):
    """Of one model. Plans, marks and tiles may be made in any thread; `look` is the owner's."""

    #: The token that stands for each that a picture becomes, and its text.
    token: int
    mark: str
    net: nn.Module

    @abstractmethod
    def plan(self, shown: Shown) -> Plan: ...

    @abstractmethod
    def text(self, plan: Plan) -> str:
        """What stands in a prompt for a picture: `plan.tokens` marks, and what is between them."""

    @abstractmethod
    def tiles(self, pixels: Pixels, plan: Plan) -> list[Pixels]: ...

    @abstractmethod
    def reader(self, model: Any) -> Any:
        """The module of mlx_lm's model that has the words' vectors, as `embed_tokens`."""

    @abstractmethod
    def look(self, tile: Pixels) -> Steps:
        """A step at a time, so that others have their turns between them."""
