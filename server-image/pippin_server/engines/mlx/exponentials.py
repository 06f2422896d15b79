"""Exponentials on CPUs: MLX takes them one after the other there, NumPy several at once. A window
of sound has a hundred million of them, and a step of a picture a thousand million."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

#: Below, what is gained is lost by going back and forth.
_MANY = 64
#: Abramowitz and Stegun, 7.1.26: within 1.5e-7 of the error function.
_SLOPE = np.float32(0.3275911)
_POWERS = np.array(
    [1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592], dtype=np.float32
)


def _apply(x: mx.array) -> bool:
    on_cpu = mx.default_device() == mx.Device(mx.cpu)
    return on_cpu and x.dtype == mx.float32 and x.shape[-2] >= _MANY


def attention(asked: mx.array, keys: mx.array, values: mx.array, scale: float) -> mx.array:
    """Each rows x heads x length x numbers; everything is seen."""
    if not _apply(asked):
        return mx.fast.scaled_dot_product_attention(asked, keys, values, scale=scale)
    parts = zip(*(x.flatten(0, 1) for x in (asked * scale, keys, values)), strict=True)
    return mx.stack([_head(*part) for part in parts]).reshape(asked.shape)


def _head(asked: mx.array, keys: mx.array, values: mx.array) -> mx.array:
    shares = asked @ keys.T
    mx.eval(shares)
    view: Floats = np.asarray(shares)  # the same memory: nobody else has it yet
    view -= view.max(axis=-1, keepdims=True)
    np.exp(view, out=view)
    view /= view.sum(axis=-1, keepdims=True)
    seen = shares @ values
    mx.eval(seen)
    return seen


def gelu(x: mx.array) -> mx.array:
    if not _apply(x):
        smooth: mx.array = nn.gelu(x)
        return smooth
    mx.eval(x)
    whole: Floats = np.asarray(x)
    size = np.abs(whole)
    size *= np.float32(np.sqrt(0.5))
    share = 1 / (1 + _SLOPE * size)
    rest = np.zeros_like(share)
    for power in _POWERS:
        rest += power
        rest *= share
    rest *= np.exp(-size * size)  # what is missing to 1 of the error function
    rest *= np.abs(whole)
    rest *= np.float32(0.5)
    return mx.array(np.maximum(whole, 0) - rest)


def silu(x: mx.array) -> mx.array:
    if not _apply(x):
        smooth: mx.array = nn.silu(x)
        return smooth
    mx.eval(x)
    whole: Floats = np.asarray(x)
    with np.errstate(over="ignore"):  # a part of infinity is none
        share = np.exp(-whole)
    share += 1
    return mx.array(np.divide(whole, share, out=share))
