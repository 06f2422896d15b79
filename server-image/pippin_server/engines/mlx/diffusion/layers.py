"""What the networks that make pictures are built of. Arrays are rows x height x width x channels,
and what is computed with is bounded, whatever the picture's size."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import mlx.core as mx
import mlx.nn as nn

from ..exponentials import attention, silu

#: Numbers that attention writes down at once, and that a convolution on a CPU copies.
_ATTENTION, _CONVOLUTION = 2**25, 2**25


def attend(asked: mx.array, keys: mx.array, values: mx.array, scale: float) -> mx.array:
    """Each rows x heads x length x numbers; as many as are bearable ask at once."""
    rows, heads, length, _ = asked.shape
    at_once = max(1, _ATTENTION // (rows * heads * keys.shape[2]))
    parts = [
        attention(part, keys, values, scale)
        for part in mx.split(asked, range(at_once, length, at_once), axis=2)
    ]
    return parts[0] if len(parts) == 1 else mx.concatenate(parts, axis=2)


class Attention(nn.Module):  # type: ignore[misc]
    """`seen`: size of what is looked at. `wide`: computed in 32 bits."""

    def __init__(
        self, size: int, seen: int, heads: int, *, bias: bool = False, wide: bool = False
    ) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (size // heads) ** -0.5
        self.wide = wide
        self.to_q = nn.Linear(size, size, bias=bias)
        self.to_k = nn.Linear(seen, size, bias=bias)
        self.to_v = nn.Linear(seen, size, bias=bias)
        self.to_out = nn.Linear(size, size)

    def __call__(self, x: mx.array, seen: mx.array) -> mx.array:
        parts = self.to_q(x), self.to_k(seen), self.to_v(seen)
        asked, keys, values = (self._by_head(part) for part in parts)
        found = attend(asked, keys, values, self.scale)
        rows, length, size = x.shape
        found = found.transpose(0, 2, 1, 3).reshape(rows, length, size).astype(x.dtype)
        joined: mx.array = self.to_out(found)
        return joined

    def _by_head(self, x: mx.array) -> mx.array:
        rows, length, _ = x.shape
        if self.wide:
            x = x.astype(mx.float32)
        return x.reshape(rows, length, self.heads, -1).transpose(0, 2, 1, 3)


class Conv(nn.Conv2d):  # type: ignore[misc]
    """Three by three, to as large a picture. A CPU copies each number nine times for it: a stripe
    of the picture at a time."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)

    def __call__(self, x: mx.array) -> mx.array:
        rows, height, width, channels = x.shape
        at_once = max(1, _CONVOLUTION // (9 * rows * width * channels))
        if at_once >= height or mx.default_device() != mx.Device(mx.cpu):
            whole: mx.array = super().__call__(x)
            return whole
        framed = mx.pad(x, [(0, 0), (1, 1), (0, 0), (0, 0)])
        stripes = []
        for top in range(0, height, at_once):
            stripe = framed[:, top : min(top + at_once, height) + 2]
            made = mx.conv2d(stripe, self.weight, padding=(0, 1)) + self.bias
            mx.eval(made)
            stripes.append(made)
        return mx.concatenate(stripes, axis=1)


def passed(steps: Iterator[mx.array]) -> Generator[mx.array, None, mx.array]:
    """All of them on, and the last one back."""
    for step in steps:
        yield step
    return step


class GroupNorm(nn.Module):  # type: ignore[misc]
    """Over all pixels and each group of channels. MLX's own takes twice the memory, since it lays
    the groups one behind the other, and is less exact."""

    def __init__(self, size: int, groups: int, epsilon: float) -> None:
        super().__init__()
        self.weight = mx.ones((size,))
        self.bias = mx.zeros((size,))
        self._groups, self._each, self._epsilon = groups, size // groups, epsilon

    def __call__(self, x: mx.array) -> mx.array:
        wide = x.astype(mx.float32)
        wide = wide - self._spread(self._mean(wide))
        scale = self._spread(mx.rsqrt(self._mean(mx.square(wide)) + self._epsilon))
        return (wide * (scale * self.weight) + self.bias).astype(x.dtype)

    def _mean(self, x: mx.array) -> mx.array:
        """Rows x groups. Pixels first, of which there are many: so sums stay exact."""
        return x.reshape(x.shape[0], -1, self._groups, self._each).mean(axis=1).mean(axis=2)

    def _spread(self, x: mx.array) -> mx.array:
        """To each channel."""
        return mx.repeat(x, self._each, axis=1)[:, None, None]


class Resnet(nn.Module):  # type: ignore[misc]
    """`times`: size of what tells how noisy a picture is; 0: nothing does."""

    def __init__(
        self, inputs: int, outputs: int, groups: int, epsilon: float, times: int = 0
    ) -> None:
        super().__init__()
        self.norm1 = GroupNorm(inputs, groups, epsilon)
        self.conv1 = Conv(inputs, outputs)
        self.norm2 = GroupNorm(outputs, groups, epsilon)
        self.conv2 = Conv(outputs, outputs)
        if times:
            self.time_emb_proj = nn.Linear(times, outputs)
        if inputs != outputs:
            self.conv_shortcut = nn.Linear(inputs, outputs)

    def steps(self, x: mx.array, time: mx.array | None = None) -> Iterator[mx.array]:
        y = self.conv1(silu(self.norm1(x)))
        yield y
        if time is not None:
            y = y + self.time_emb_proj(silu(time))[:, None, None]
        y = self.conv2(silu(self.norm2(y)))
        if "conv_shortcut" in self:
            x = self.conv_shortcut(x)
        yield x + y


class Upsample(nn.Module):  # type: ignore[misc]
    """Twice as large."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.conv = Conv(size, size)

    def __call__(self, x: mx.array, height: int, width: int) -> mx.array:
        """`height`, `width`: or one less than twice, as the larger picture was before."""
        x = mx.repeat(mx.repeat(x, 2, axis=1), 2, axis=2)
        larger: mx.array = self.conv(x[:, :height, :width])
        return larger
