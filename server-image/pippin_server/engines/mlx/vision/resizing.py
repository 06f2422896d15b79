"""Pixels in another size, to the bit as Pillow makes them, by which models were trained.

First columns, then rows, with weights in fixed point. A row of the result needs few rows of the
source that lie together, so a block of rows is one small matrix product: exact in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

#: Rows x columns x (red, green, blue), a byte each.
Pixels = npt.NDArray[np.uint8]

#: Bits behind the point of a weight.
_BITS = 22
#: Rows of the result that are made at once.
_BLOCK = 32

_Numbers = npt.NDArray[np.float64]


def _triangle(x: _Numbers) -> _Numbers:
    return np.maximum(0.0, 1.0 - np.abs(x))


def _cubic(x: _Numbers) -> _Numbers:
    a, x = -0.5, np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    found: _Numbers = np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
    return found


def _lanczos(x: _Numbers) -> _Numbers:
    found: _Numbers = np.where(np.abs(x) < 3.0, np.sinc(x) * np.sinc(x / 3), 0.0)
    return found


#: By Pillow's numbers, as configs have them: how far a filter reaches, and the filter.
FILTERS: dict[int, tuple[float, Callable[[_Numbers], _Numbers]]] = {
    1: (3.0, _lanczos),
    2: (1.0, _triangle),
    3: (2.0, _cubic),
}


def resized(pixels: Pixels, height: int, width: int, kind: int) -> Pixels:
    # Colour by colour: what lies together is read together.
    planes = [np.ascontiguousarray(pixels[:, :, colour]) for colour in range(pixels.shape[2])]
    if width != pixels.shape[1]:
        planes = [_columns(plane, width, kind) for plane in planes]
    if height != pixels.shape[0]:
        planes = [_rows(plane, height, kind) for plane in planes]
    return np.stack(planes, axis=-1)


def _rows(plane: Pixels, count: int, kind: int) -> Pixels:
    """So many rows of the same length."""
    made = np.empty((count, plane.shape[1]), dtype=np.uint8)
    for here, there, band in _bands(plane.shape[0], count, kind):
        made[here] = _whole(band @ plane[there].astype(np.float64))
    return made


def _columns(plane: Pixels, count: int, kind: int) -> Pixels:
    made = np.empty((plane.shape[0], count), dtype=np.uint8)
    for here, there, band in _bands(plane.shape[1], count, kind):
        made[:, here] = _whole(plane[:, there].astype(np.float64) @ band.T)
    return made


def _whole(summed: _Numbers) -> _Numbers:
    """Rounded, in a byte."""
    summed += 0.5
    np.floor(summed, out=summed)
    return np.clip(summed, 0, 255, out=summed)


def _bands(source: int, count: int, kind: int) -> Iterator[tuple[slice, slice, _Numbers]]:
    """Which of the result are made of which of the source, and by which matrix."""
    first, weights = _weights(source, count, kind)
    taps = weights.shape[1]
    for begin in range(0, count, _BLOCK):
        end = min(begin + _BLOCK, count)
        low, high = int(first[begin]), min(int(first[end - 1]) + taps, source)
        band = np.zeros((end - begin, high - low + taps))
        for row in range(begin, end):
            at = int(first[row]) - low
            band[row - begin, at : at + taps] = weights[row]
        yield slice(begin, end), slice(low, high), band[:, : high - low]


def _weights(source: int, count: int, kind: int) -> tuple[npt.NDArray[np.int64], _Numbers]:
    """Of each row of the result: the first row of the source that it needs, and what it takes of
    that and of those behind it."""
    reach, kernel = FILTERS[kind]
    scale = source / count
    stretch = max(scale, 1.0)
    support = reach * stretch
    centres = (np.arange(count) + 0.5) * scale
    first = np.maximum((centres - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centres + support + 0.5).astype(np.int64), source)
    offsets = np.arange(math.ceil(support) * 2 + 1)
    at = offsets[None] + first[:, None]
    found = kernel((at - centres[:, None] + 0.5) / stretch)
    found[at >= last[:, None]] = 0.0
    found /= found.sum(axis=1, keepdims=True)
    return first, np.trunc(found * (1 << _BITS) + np.copysign(0.5, found)) / (1 << _BITS)
