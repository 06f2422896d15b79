"""Between pixels and latents, which are an eighth of their width and height: AutoencoderKL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..exponentials import silu
from .layers import Attention, Conv, GroupNorm, Resnet, Upsample, passed
from .told import expect

_EPSILON = 1e-6
#: What there is no other way of here, and what a config that does not say means.
_ONLY = {
    "act_fn": "silu",
    "in_channels": 3,
    "out_channels": 3,
    "latents_mean": None,
    "latents_std": None,
    "mid_block_add_attention": True,
    "shift_factor": None,
    "use_post_quant_conv": True,
    "use_quant_conv": True,
}


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers of a config.json. `scale`: of latents, as the network for them knows them."""

    widths: tuple[int, ...]
    layers: int
    groups: int
    latents: int
    scale: float

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """Raises KeyError and ValueError."""
        expect(config, _ONLY)
        widths = tuple(config["block_out_channels"])
        expect(config, {"down_block_types": ["DownEncoderBlock2D"] * len(widths)})
        expect(config, {"up_block_types": ["UpDecoderBlock2D"] * len(widths)})
        return cls(
            widths=widths,
            layers=config.get("layers_per_block", 1),
            groups=config.get("norm_num_groups", 32),
            latents=config.get("latent_channels", 4),
            scale=config.get("scaling_factor", 0.18215),
        )


class _Downsample(nn.Module):  # type: ignore[misc]
    def __init__(self, size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(size, size, 3, stride=2)

    def __call__(self, x: mx.array) -> mx.array:
        smaller: mx.array = self.conv(mx.pad(x, [(0, 0), (0, 1), (0, 1), (0, 0)]))
        return smaller


class _Block(nn.Module):  # type: ignore[misc]
    """Resnets of one size, then to the next."""

    def __init__(self, inputs: int, outputs: int, layers: int, groups: int) -> None:
        super().__init__()
        sizes = [inputs] + [outputs] * (layers - 1)
        self.resnets = [Resnet(size, outputs, groups, _EPSILON) for size in sizes]

    def resized(self, x: mx.array) -> mx.array:
        if "downsample" in self:
            x = self.downsample(x)
        if "upsample" in self:
            x = self.upsample(x, 2 * x.shape[1], 2 * x.shape[2])
        return x


class _Middle(nn.Module):  # type: ignore[misc]
    def __init__(self, size: int, groups: int) -> None:
        super().__init__()
        self.resnets = [Resnet(size, size, groups, _EPSILON) for _ in range(2)]
        self.group_norm = GroupNorm(size, groups, _EPSILON)
        self.attention = Attention(size, size, 1, bias=True)

    def steps(self, x: mx.array) -> Iterator[mx.array]:
        x = yield from passed(self.resnets[0].steps(x))
        y = self.group_norm(x).reshape(x.shape[0], -1, x.shape[-1])
        yield (x := x + self.attention(y, y).reshape(x.shape))
        yield from self.resnets[1].steps(x)


class _Encoder(nn.Module):  # type: ignore[misc]
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        widths, last = shape.widths, shape.widths[-1]
        self.conv_in = Conv(3, widths[0])
        befores = (widths[0], *widths)
        self.down_blocks = [
            _Block(before, size, shape.layers, shape.groups)
            for before, size in zip(befores, widths, strict=False)
        ]
        for block, size in zip(self.down_blocks[:-1], widths, strict=False):
            block.downsample = _Downsample(size)
        self.mid_block = _Middle(last, shape.groups)
        self.conv_norm_out = GroupNorm(last, shape.groups, _EPSILON)
        self.conv_out = Conv(last, 2 * shape.latents)

    def steps(self, x: mx.array) -> Iterator[mx.array]:
        x = self.conv_in(x)
        for block in self.down_blocks:
            for resnet in block.resnets:
                x = yield from passed(resnet.steps(x))
            x = block.resized(x)
        x = yield from passed(self.mid_block.steps(x))
        yield self.conv_out(silu(self.conv_norm_out(x)))


class _Decoder(nn.Module):  # type: ignore[misc]
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        widths = shape.widths[::-1]
        self.conv_in = Conv(shape.latents, widths[0])
        self.mid_block = _Middle(widths[0], shape.groups)
        self.up_blocks = [
            _Block(before, size, shape.layers + 1, shape.groups)
            for before, size in zip((widths[0], *widths), widths, strict=False)
        ]
        for block, size in zip(self.up_blocks[:-1], widths, strict=False):
            block.upsample = Upsample(size)
        self.conv_norm_out = GroupNorm(widths[-1], shape.groups, _EPSILON)
        self.conv_out = Conv(widths[-1], 3)

    def steps(self, x: mx.array) -> Iterator[mx.array]:
        x = yield from passed(self.mid_block.steps(self.conv_in(x)))
        for block in self.up_blocks:
            for resnet in block.resnets:
                x = yield from passed(resnet.steps(x))
            yield (x := block.resized(x))
        yield self.conv_out(silu(self.conv_norm_out(x)))


class Vae(nn.Module):  # type: ignore[misc]
    """Owned by one thread. Both ways yield what is to be computed by then, and the result last."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.latents = shape.latents
        self.factor = 2 ** (len(shape.widths) - 1)
        self.scale = shape.scale
        self.encoder = _Encoder(shape)
        self.decoder = _Decoder(shape)
        self.quant_conv = nn.Linear(2 * shape.latents, 2 * shape.latents)
        self.post_quant_conv = nn.Linear(shape.latents, shape.latents)

    def encode(self, pixels: mx.array) -> Iterator[mx.array]:
        """From -1 to 1. What a picture's latents are likeliest to be."""
        x = yield from passed(self.encoder.steps(pixels))
        mean, _ = mx.split(self.quant_conv(x), 2, axis=-1)
        yield mean * self.scale

    def decode(self, latents: mx.array) -> Iterator[mx.array]:
        yield from self.decoder.steps(self.post_quant_conv(latents / self.scale))
