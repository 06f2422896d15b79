"""What goes to the thread that paints, and what comes back; light to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ...media import Painting

#: Rows x columns x red, green, blue.
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Job:
    """`seed`: of the noise that the picture is made of; `steps` 0: as many as are usual."""

    painting: Painting
    seed: int
    steps: int = 0


@dataclass(frozen=True, slots=True)
class Painted:
    pixels: Pixels
    finish: Literal["stop"] = "stop"
