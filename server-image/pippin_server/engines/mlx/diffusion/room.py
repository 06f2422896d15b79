"""How large a model's pictures are, and what one takes of memory beside the weights: an estimate,
against measured ones. Reads no weights, needs no MLX."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from . import told

#: Bytes that are computed with, whatever the size; and how many outputs of the widest layer at full
#: size the decoder holds at once.
_BASE, _AT_ONCE = 256 * 2**20, 5
#: Pictures of more than so many times what a model was taught are no use.
_TIMES = 4


@dataclass(frozen=True, slots=True)
class Room:
    """`side`: of the pictures that the model was taught, in pixels; `pixel`: bytes of each."""

    side: int
    pixel: int

    @classmethod
    def of(cls, path: Path) -> Room:
        """Configs that do not tell leave zeros, which are for whoever loads to judge."""
        try:
            unet, vae = (told.config(path / part / "config.json") for part in ("unet", "vae"))
            widths: list[int] = vae["block_out_channels"]
            side = unet["sample_size"] * 2 ** (len(widths) - 1)
            return cls(int(side), 4 * max(widths[:2]) * _AT_ONCE)
        except (OSError, ValueError, KeyError, TypeError):
            return cls(0, 0)

    def bytes(self) -> int:
        """Of a picture as the model was taught."""
        return _BASE + self.pixel * self.side**2

    def most(self, left: int | None) -> int:
        """Pixels of the largest, in so many bytes; None: nobody knows how many."""
        usual = self.side**2
        if left is None:
            return _TIMES * usual
        return max(usual, min(_TIMES * usual, (left - _BASE) // self.pixel))
