"""What a prompt means: CLIP's encoder of texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

_ACTIVATIONS: dict[str, Callable[[mx.array], mx.array]] = {
    "gelu": nn.gelu,
    "quick_gelu": nn.gelu_fast_approx,
}


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers of a config.json. `projection`: size of a whole text's meaning; 0: not told."""

    hidden: int
    inner: int
    heads: int
    layers: int
    positions: int
    vocabulary: int
    activation: str
    epsilon: float
    projection: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """Raises KeyError and ValueError."""
        activation = config.get("hidden_act", "quick_gelu")
        if activation not in _ACTIVATIONS:
            raise ValueError(f"hidden_act {activation!r} is not known here")
        kinds = config.get("architectures") or [""]
        return cls(
            hidden=config["hidden_size"],
            inner=config["intermediate_size"],
            heads=config["num_attention_heads"],
            layers=config["num_hidden_layers"],
            positions=config.get("max_position_embeddings", 77),
            vocabulary=config.get("vocab_size", 49408),
            activation=activation,
            epsilon=config.get("layer_norm_eps", 1e-5),
            projection=config.get("projection_dim", 512) if "Projection" in kinds[0] else 0,
        )


@dataclass(frozen=True, slots=True)
class Meaning:
    """Of each token after all layers, and before the last; `whole`: of the text, where told."""

    last: mx.array
    before: mx.array
    whole: mx.array | None


class _Attention(nn.Module):  # type: ignore[misc]
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.scale = (shape.hidden // shape.heads) ** -0.5
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            self[name] = nn.Linear(shape.hidden, shape.hidden)

    def __call__(self, x: mx.array) -> mx.array:
        rows, length, _ = x.shape

        def by_head(projected: mx.array) -> mx.array:
            return projected.reshape(rows, length, self.heads, -1).transpose(0, 2, 1, 3)

        parts = (by_head(project(x)) for project in (self.q_proj, self.k_proj, self.v_proj))
        seen = mx.fast.scaled_dot_product_attention(*parts, scale=self.scale, mask="causal")
        joined: mx.array = self.out_proj(seen.transpose(0, 2, 1, 3).reshape(rows, length, -1))
        return joined


class _Layer(nn.Module):  # type: ignore[misc]
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attn = _Attention(shape)
        self.layer_norm1 = nn.LayerNorm(shape.hidden, eps=shape.epsilon)
        self.layer_norm2 = nn.LayerNorm(shape.hidden, eps=shape.epsilon)
        self.fc1 = nn.Linear(shape.hidden, shape.inner)
        self.fc2 = nn.Linear(shape.inner, shape.hidden)
        self._activation = _ACTIVATIONS[shape.activation]

    def __call__(self, x: mx.array) -> mx.array:
        x = x + self.self_attn(self.layer_norm1(x))
        x = x + self.fc2(self._activation(self.fc1(self.layer_norm2(x))))
        return x


class Clip(nn.Module):  # type: ignore[misc]
    """Owned by one thread."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.words = nn.Embedding(shape.vocabulary, shape.hidden)
        self.positions = nn.Embedding(shape.positions, shape.hidden)
        self.layers = [_Layer(shape) for _ in range(shape.layers)]
        self.final_layer_norm = nn.LayerNorm(shape.hidden, eps=shape.epsilon)
        if shape.projection:
            self.text_projection = nn.Linear(shape.hidden, shape.projection, bias=False)

    def __call__(self, tokens: mx.array, ends: mx.array) -> Meaning:
        """`tokens`: rows x positions; `ends`: where each text ends, and its meaning is read."""
        x = before = self.words(tokens) + self.positions(mx.arange(tokens.shape[1]))
        for layer in self.layers:
            before, x = x, layer(x)
        x = self.final_layer_norm(x)
        whole = None
        if "text_projection" in self:
            whole = self.text_projection(x[mx.arange(tokens.shape[0]), ends])
        return Meaning(x, before, whole)
