"""Sound as a model hears it: how loud it is in each band, 100 times a second. Needs no MLX."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

HERTZ = 16_000
#: Samples of a frame, and from one frame to the next.
_FRAME, _HOP = 400, 160
#: Below 1,000 Hz bands are equally wide, above each is wider than the one before by a constant.
_LINEAR, _KNEE, _STEP = 200 / 3, 1000.0, np.log(6.4) / 27


def log_mel(samples: Floats, window: int, bands: int) -> Floats:
    """Frames x bands of a window of so many samples; what is missing at its end is silence."""
    padded = np.zeros(window + _FRAME, dtype=np.float32)
    padded[_FRAME // 2 : _FRAME // 2 + len(samples)] = samples
    # Both ends are mirrored, as those who trained the models did.
    padded[: _FRAME // 2] = padded[_FRAME // 2 + 1 : _FRAME + 1][::-1]
    padded[-_FRAME // 2 :] = padded[-_FRAME - 1 : -_FRAME // 2 - 1][::-1]
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FRAME)[::_HOP][:-1]
    power = np.abs(np.fft.rfft(frames * _bell())) ** 2
    loud = np.log10(np.maximum(power @ _filters(bands), 1e-10))
    found: Floats = ((np.maximum(loud, loud.max() - 8.0) + 4.0) / 4.0).astype(np.float32)
    return found


@lru_cache
def _bell() -> Floats:
    turn = 2 * np.pi * np.arange(_FRAME) / _FRAME
    return (0.5 - 0.5 * np.cos(turn)).astype(np.float32)


@lru_cache
def _filters(bands: int) -> Floats:
    """Frequencies x bands: triangles of one area each, half of each over its neighbours, which is
    called Slaney's mel scale."""
    edges = _hertz(np.linspace(0.0, _mel(HERTZ / 2), bands + 2))
    frequencies = np.linspace(0.0, HERTZ / 2, _FRAME // 2 + 1)[:, None]
    rising = (frequencies - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - frequencies) / np.diff(edges)[1:]
    area = 2.0 / (edges[2:] - edges[:-2])
    return (np.maximum(0.0, np.minimum(rising, falling)) * area).astype(np.float32)


def _mel(hertz: float) -> float:
    return float(_KNEE / _LINEAR + np.log(hertz / _KNEE) / _STEP)


def _hertz(mels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    knee = _KNEE / _LINEAR
    return np.where(mels < knee, mels * _LINEAR, _KNEE * np.exp(_STEP * (mels - knee)))
