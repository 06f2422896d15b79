"""What may stand in a ModelDeployment's `engine.args` for MLX."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn

DType = Literal["auto", "float32", "float16", "bfloat16"]


@dataclass(frozen=True, slots=True)
class Args:
    """`dtype` auto: float32 on a CPU, the model's own on a GPU. `threads` 0: chosen by cores.

    Of pictures, what is not told is as the model was made for: see `diffusion.drawing.Habits`.
    """

    dtype: DType = "auto"
    prefill_step: int = 512
    prefill_batch: int = 8
    threads: int = 0
    steps: int = 0
    guidance: float | None = None
    strength: float | None = None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"engine arguments: {message}")


def parse(arguments: Sequence[str], *, paints: bool = False) -> Args:
    """Raises ValueError in words for the user."""
    parser = _Parser(prog="mlx", add_help=False, allow_abbrev=False)
    parser.add_argument("--dtype", choices=["auto", "float32", "float16", "bfloat16"])
    parser.add_argument("--prefill-step", type=_Between(16, 4096))
    parser.add_argument("--prefill-batch", type=_Between(1, 64))
    parser.add_argument("--threads", type=_Between(1, 256))
    if paints:
        parser.add_argument("--steps", type=_Between(1, 1000))
        parser.add_argument("--guidance", type=_Between(0.0, 50.0))
        parser.add_argument("--strength", type=_Between(0.01, 1.0))
    found = vars(parser.parse_args(list(arguments)))
    return Args(**{name: value for name, value in found.items() if value is not None})


class _Between:
    """Numbers of the bounds' kind."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def __call__(self, text: str) -> float:
        number = type(self.low)(text)
        if not self.low <= number <= self.high:
            raise argparse.ArgumentTypeError(f"must be {self.low} to {self.high}, got {text}")
        return number
