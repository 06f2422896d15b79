"""A vision transformer: a tile's patches look at each other, layer by layer (SigLIP, CLIP)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from .. import exponentials
from .eyes import Steps

_COLOURS = 3


def _quick(x: mx.array) -> mx.array:
    return x * mx.sigmoid(1.702 * x)


_ACTIVATIONS = {
    "gelu_pytorch_tanh": nn.gelu_approx,
    "gelu": nn.gelu,
    "quick_gelu": _quick,
}


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers of a config's `vision_config`. `side`: patches of a tile's side; `sums`: CLIP's
    extra place that sums a picture up, and its norm before the layers."""

    hidden: int
    inner: int
    layers: int
    heads: int
    tile: int
    patch: int
    eps: float
    activation: str
    sums: bool

    @classmethod
    def of(cls, told: Mapping[str, Any], *, sums: bool) -> Shape:
        """Raises KeyError and ValueError."""
        activation = told.get("hidden_act", "quick_gelu" if sums else "gelu_pytorch_tanh")
        if activation not in _ACTIVATIONS or told.get("num_channels", _COLOURS) != _COLOURS:
            raise ValueError("this vision tower is of a kind that is not known here")
        return cls(
            hidden=told["hidden_size"],
            inner=told["intermediate_size"],
            layers=told["num_hidden_layers"],
            heads=told["num_attention_heads"],
            tile=told["image_size"],
            patch=told["patch_size"],
            eps=told.get("layer_norm_eps", 1e-5 if sums else 1e-6),
            activation=activation,
            sums=sums,
        )

    @property
    def side(self) -> int:
        return self.tile // self.patch


class _Attention(nn.Module):  # type: ignore[misc]
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        hidden = shape.hidden
        self.heads = shape.heads
        self.scale = (hidden // shape.heads) ** -0.5
        self.q_proj = nn.Linear(hidden, hidden)
        self.k_proj = nn.Linear(hidden, hidden)
        self.v_proj = nn.Linear(hidden, hidden)
        self.out_proj = nn.Linear(hidden, hidden)

    def __call__(self, x: mx.array) -> mx.array:
        asked, keys, values = (
            part(x).reshape(1, x.shape[1], self.heads, -1).transpose(0, 2, 1, 3)
            for part in (self.q_proj, self.k_proj, self.v_proj)
        )
        found = exponentials.attention(asked, keys, values, self.scale)
        joined: mx.array = self.out_proj(found.transpose(0, 2, 1, 3).reshape(x.shape))
        return joined


class _MLP(nn.Module):  # type: ignore[misc]
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.fc1 = nn.Linear(shape.hidden, shape.inner)
        self.fc2 = nn.Linear(shape.inner, shape.hidden)
        self._activation = _ACTIVATIONS[shape.activation]

    def __call__(self, x: mx.array) -> mx.array:
        made: mx.array = self.fc2(self._activation(self.fc1(x)))
        return made


class _Layer(nn.Module):  # type: ignore[misc]
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attn = _Attention(shape)
        self.layer_norm1 = nn.LayerNorm(shape.hidden, eps=shape.eps)
        self.mlp = _MLP(shape)
        self.layer_norm2 = nn.LayerNorm(shape.hidden, eps=shape.eps)

    def __call__(self, x: mx.array) -> mx.array:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class _Embeddings(nn.Module):  # type: ignore[misc]
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        # Patches do not overlap: what others call a convolution is a product.
        inputs = _COLOURS * shape.patch**2
        self.patch_embedding = nn.Linear(inputs, shape.hidden, bias=not shape.sums)
        self.position_embedding = nn.Embedding(shape.side**2 + shape.sums, shape.hidden)
        if shape.sums:
            self.class_embedding = mx.zeros((shape.hidden,))


class _Encoder(nn.Module):  # type: ignore[misc]
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.layers = [_Layer(shape) for _ in range(shape.layers)]


class Tower(nn.Module):  # type: ignore[misc]
    """Owned by one thread. Its modules are called as Hugging Face's files call them."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self._shape = shape
        self.embeddings = _Embeddings(shape)
        self.encoder = _Encoder(shape)
        if shape.sums:
            self.pre_layrnorm = nn.LayerNorm(shape.hidden, eps=shape.eps)
        self.post_layernorm = nn.LayerNorm(shape.hidden, eps=shape.eps)

    def look(self, tile: mx.array, layers: int) -> Steps:
        """Rows x columns x colours in; so many layers of it."""
        x = self._begun(tile)
        for layer in self.encoder.layers[:layers]:
            x = layer(x)
            mx.eval(x)
            yield
        return x

    def _begun(self, tile: mx.array) -> mx.array:
        shape, its = self._shape, self.embeddings
        side, patch = shape.side, shape.patch
        whole = tile[: side * patch, : side * patch].reshape(side, patch, side, patch, _COLOURS)
        patches = whole.transpose(0, 2, 1, 3, 4).reshape(1, side * side, -1)
        positions = its.position_embedding.weight.dtype
        x: mx.array = its.patch_embedding(patches.astype(positions))
        if not shape.sums:
            placed: mx.array = x + its.position_embedding.weight
            return placed
        x = mx.concatenate([mx.broadcast_to(its.class_embedding, (1, 1, shape.hidden)), x], axis=1)
        normed: mx.array = self.pre_layrnorm(x + its.position_embedding.weight)
        return normed


def as_product(weight: mx.array) -> mx.array:
    """The filters of a convolution, in Hugging Face's order of dimensions or in MLX's."""
    if weight.ndim != 4:
        return weight
    if weight.shape[1] == _COLOURS and weight.shape[-1] != _COLOURS:
        weight = weight.transpose(0, 2, 3, 1)
    return weight.reshape(weight.shape[0], -1)
