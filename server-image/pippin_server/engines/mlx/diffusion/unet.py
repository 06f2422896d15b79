"""What is noise in a picture's latents, as the prompt would have the picture: UNet2DCondition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..exponentials import gelu, silu
from .layers import Attention, Conv, GroupNorm, Resnet, Upsample, passed
from .told import expect

#: What there is no other way of here, and what a config that does not say means.
_ONLY = {
    "act_fn": "silu",
    "attention_type": "default",
    "center_input_sample": False,
    "class_embed_type": None,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_norm": None,
    "downsample_padding": 1,
    "dual_cross_attention": False,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_only_cross_attention": None,
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "num_attention_heads": None,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "reverse_transformer_layers_per_block": None,
    "time_cond_proj_dim": None,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
}
#: Kinds of blocks -> whether they look at the prompt.
_DOWN = {"CrossAttnDownBlock2D": True, "DownBlock2D": False}
_UP = {"CrossAttnUpBlock2D": True, "UpBlock2D": False}


@dataclass(frozen=True, slots=True)
class Stage:
    """All blocks of one size. `depth`: of transformers; `down`, `up`: whether there are any on the
    way down, and up again."""

    size: int
    layers: int
    heads: int
    depth: int
    down: bool
    up: bool


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers of a config.json. `text`: size of a token's meaning; `added`: of what is told
    beside it, where anything is, `added_times` of it for each number."""

    latents: int
    stages: tuple[Stage, ...]
    text: int
    groups: int
    epsilon: float
    linear: bool
    wide: bool
    added: int
    added_times: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """Raises KeyError and ValueError."""
        expect(config, _ONLY)
        latents = config.get("in_channels", 4)
        expect(config, {"out_channels": latents})
        kind = config.get("addition_embed_type")
        if kind not in (None, "text_time"):
            raise ValueError(f"addition_embed_type {kind!r} is not known here")
        return cls(
            latents=latents,
            stages=_stages(config),
            text=config["cross_attention_dim"],
            groups=config.get("norm_num_groups", 32),
            epsilon=config.get("norm_eps", 1e-5),
            linear=config.get("use_linear_projection", False),
            wide=config.get("upcast_attention") or False,
            added=config["projection_class_embeddings_input_dim"] if kind else 0,
            added_times=config["addition_time_embed_dim"] if kind else 0,
        )


def _stages(config: Mapping[str, Any]) -> tuple[Stage, ...]:
    sizes = config["block_out_channels"]

    def each(name: str, default: int) -> list[int]:
        told = config.get(name, default)
        return [told] * len(sizes) if isinstance(told, int) else told

    rows = zip(
        sizes,
        each("layers_per_block", 2),
        each("attention_head_dim", 8),  # which says how many heads there are, not their size
        each("transformer_layers_per_block", 1),
        _looks(config["down_block_types"], _DOWN),
        _looks(config["up_block_types"], _UP)[::-1],
        strict=True,
    )
    return tuple(Stage(*row) for row in rows)


def _looks(kinds: list[str], known: Mapping[str, bool]) -> list[bool]:
    for kind in kinds:
        if kind not in known:
            raise ValueError(f"blocks {kind!r} are not known here, only {', '.join(known)}")
    return [known[kind] for kind in kinds]


@dataclass(frozen=True, slots=True)
class Context:
    """What a picture is to be like. `tokens`: rows x length x size of the prompts' meanings;
    `whole`, `numbers`: of all of each, and of the picture's size, for models that are told."""

    tokens: mx.array
    whole: mx.array | None = None
    numbers: tuple[int, ...] = ()


class _Block(nn.Module):  # type: ignore[misc]
    """Of a transformer."""

    def __init__(self, size: int, heads: int, shape: Shape) -> None:
        super().__init__()
        self.attn1 = Attention(size, size, heads, wide=shape.wide)
        self.attn2 = Attention(size, shape.text, heads, wide=shape.wide)
        for name in ("norm1", "norm2", "norm3"):
            self[name] = nn.LayerNorm(size)
        self.ff_in = nn.Linear(size, 8 * size)
        self.ff_out = nn.Linear(4 * size, size)

    def __call__(self, x: mx.array, text: mx.array) -> mx.array:
        y = self.norm1(x)
        x = x + self.attn1(y, y)
        x = x + self.attn2(self.norm2(x), text)
        y, gate = mx.split(self.ff_in(self.norm3(x)), 2, axis=-1)
        x = x + self.ff_out(y * gelu(gate))
        return x


class _Transformer(nn.Module):  # type: ignore[misc]
    def __init__(self, stage: Stage, shape: Shape) -> None:
        super().__init__()
        size = stage.size
        self.norm = GroupNorm(size, shape.groups, 1e-6)
        self.proj_in = nn.Linear(size, size)
        self.transformer_blocks = [_Block(size, stage.heads, shape) for _ in range(stage.depth)]
        self.proj_out = nn.Linear(size, size)

    def steps(self, x: mx.array, text: mx.array) -> Iterator[mx.array]:
        y = self.proj_in(self.norm(x).reshape(x.shape[0], -1, x.shape[-1]))
        for block in self.transformer_blocks:
            yield (y := block(y, text))
        yield x + self.proj_out(y).reshape(x.shape)


class _Stage(nn.Module):  # type: ignore[misc]
    """Resnets, each with a transformer behind it where these look at the prompt."""

    def __init__(self, inputs: list[int], stage: Stage, shape: Shape, *, looks: bool) -> None:
        super().__init__()
        times = 4 * shape.stages[0].size
        self.resnets = [
            Resnet(size, stage.size, shape.groups, shape.epsilon, times) for size in inputs
        ]
        self.attentions = [_Transformer(stage, shape) for _ in inputs] if looks else []

    def steps(self, number: int, x: mx.array, time: mx.array, text: mx.array) -> Iterator[mx.array]:
        """One of its resnets, and what is behind it."""
        x = yield from passed(self.resnets[number].steps(x, time))
        if self.attentions:
            yield from self.attentions[number].steps(x, text)


class _Middle(nn.Module):  # type: ignore[misc]
    def __init__(self, stage: Stage, shape: Shape) -> None:
        super().__init__()
        times = 4 * shape.stages[0].size
        self.resnets = [
            Resnet(stage.size, stage.size, shape.groups, shape.epsilon, times) for _ in range(2)
        ]
        self.attentions = [_Transformer(stage, shape)]

    def steps(self, x: mx.array, time: mx.array, text: mx.array) -> Iterator[mx.array]:
        x = yield from passed(self.resnets[0].steps(x, time))
        x = yield from passed(self.attentions[0].steps(x, text))
        yield from self.resnets[1].steps(x, time)


class _Mlp(nn.Module):  # type: ignore[misc]
    def __init__(self, inputs: int, size: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(inputs, size)
        self.linear_2 = nn.Linear(size, size)

    def __call__(self, x: mx.array) -> mx.array:
        made: mx.array = self.linear_2(silu(self.linear_1(x)))
        return made


class UNet(nn.Module):  # type: ignore[misc]
    """Owned by one thread."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self._shape = shape
        self.latents = shape.latents
        stages, first = shape.stages, shape.stages[0].size
        self.conv_in = Conv(shape.latents, first)
        self.time_embedding = _Mlp(first, 4 * first)
        if shape.added:
            self.add_embedding = _Mlp(shape.added, 4 * first)
        before, kept = first, [first]
        self.down_blocks = []
        for index, stage in enumerate(stages):
            inputs = [before] + [stage.size] * (stage.layers - 1)
            block = _Stage(inputs, stage, shape, looks=stage.down)
            kept += [stage.size] * stage.layers
            if index < len(stages) - 1:
                block.downsample = nn.Conv2d(stage.size, stage.size, 3, stride=2, padding=1)
                kept.append(stage.size)
            self.down_blocks.append(block)
            before = stage.size
        self.mid_block = _Middle(stages[-1], shape)
        self.up_blocks = []
        for index, stage in enumerate(reversed(stages)):
            befores = [before] + [stage.size] * stage.layers
            block = _Stage([size + kept.pop() for size in befores], stage, shape, looks=stage.up)
            if index < len(stages) - 1:
                block.upsample = Upsample(stage.size)
            self.up_blocks.append(block)
            before = stage.size
        self.conv_norm_out = GroupNorm(first, shape.groups, shape.epsilon)
        self.conv_out = Conv(first, shape.latents)

    def steps(self, latents: mx.array, time: float, context: Context) -> Iterator[mx.array]:
        """`latents`: rows x height x width x channels. Yields what is to be computed by then, and
        last the noise, or what the model says instead of it."""
        moment = self._moment(latents.shape[0], time, context, latents.dtype)
        x = self.conv_in(latents)
        kept = [x]
        for block in self.down_blocks:
            for number in range(len(block.resnets)):
                x = yield from passed(block.steps(number, x, moment, context.tokens))
                kept.append(x)
            if "downsample" in block:
                kept.append(x := block.downsample(x))
        x = yield from passed(self.mid_block.steps(x, moment, context.tokens))
        for block in self.up_blocks:
            for number in range(len(block.resnets)):
                joined = mx.concatenate([x, kept.pop()], axis=-1)
                x = yield from passed(block.steps(number, joined, moment, context.tokens))
            if "upsample" in block:
                x = block.upsample(x, *kept[-1].shape[1:3])
        yield self.conv_out(silu(self.conv_norm_out(x)))

    def _moment(self, rows: int, time: float, context: Context, dtype: mx.Dtype) -> mx.array:
        """How noisy it is, and what else is told."""
        waves = _waves(mx.array([time]), self._shape.stages[0].size).astype(dtype)
        moment: mx.array = self.time_embedding(waves)
        if context.whole is not None:
            told = _waves(mx.array(context.numbers), self._shape.added_times).reshape(1, -1)
            told = mx.broadcast_to(told.astype(dtype), (rows, told.shape[1]))
            moment = moment + self.add_embedding(mx.concatenate([context.whole, told], axis=-1))
        return mx.broadcast_to(moment, (rows, moment.shape[1]))


def _waves(numbers: mx.array, size: int) -> mx.array:
    """Each as cosines and sines of it, slower and slower."""
    half = size // 2
    slower = mx.exp(-mx.log(mx.array(10000.0)) / half * mx.arange(half))
    angles = numbers.astype(mx.float32)[:, None] * slower[None]
    return mx.concatenate([mx.cos(angles), mx.sin(angles)], axis=-1)
