"""Encoders of the BERT family, which mlx_lm does not have: BERT, RoBERTa and XLM-RoBERTa."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

MODEL_TYPES = ("bert", "roberta", "xlm-roberta")

_ACTIVATIONS: dict[str, Callable[[mx.array], mx.array]] = {
    "gelu": nn.gelu,
    "gelu_new": nn.gelu_approx,
    "gelu_pytorch_tanh": nn.gelu_approx,
    "relu": nn.relu,
}
#: Hugging Face's names -> ours, in this order.
_RENAMED = (
    ("encoder.layer.", "layers."),
    ("attention.self.", "attention."),
    ("attention.output.dense", "attention.out"),
    ("attention.output.LayerNorm", "attention_norm"),
    ("intermediate.dense", "up"),
    ("output.dense", "down"),
    ("output.LayerNorm", "norm"),
    ("embeddings.LayerNorm", "norm"),
    ("embeddings.word_embeddings", "words"),
    ("embeddings.position_embeddings", "positions"),
    ("embeddings.token_type_embeddings", "types"),
    ("LayerNorm", "norm"),
    (".gamma", ".weight"),
    (".beta", ".bias"),
)
#: What is learnt with an encoder and not needed to embed.
_UNUSED = ("pooler.", "cls.", "lm_head.", "classifier.", "embeddings.position_ids")


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers of a config.json. `first`: the position of a text's first token."""

    hidden: int
    layers: int
    heads: int
    feed_forward: int
    vocabulary: int
    positions: int
    types: int
    epsilon: float
    activation: str
    first: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """Raises KeyError and ValueError."""
        if config.get("position_embedding_type", "absolute") != "absolute":
            raise ValueError("only absolute positions are known here")
        if config.get("hidden_act", "gelu") not in _ACTIVATIONS:
            raise ValueError(f"hidden_act {config['hidden_act']!r} is not known here")
        bert = config["model_type"] == "bert"
        return cls(
            hidden=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            feed_forward=config["intermediate_size"],
            vocabulary=config["vocab_size"],
            positions=config["max_position_embeddings"],
            types=config.get("type_vocab_size", 2),
            epsilon=config.get("layer_norm_eps", 1e-12),
            activation=config.get("hidden_act", "gelu"),
            first=0 if bert else config.get("pad_token_id", 1) + 1,
        )


class _Attention(nn.Module):  # type: ignore[misc]
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.scale = (shape.hidden // shape.heads) ** -0.5
        self.query = nn.Linear(shape.hidden, shape.hidden)
        self.key = nn.Linear(shape.hidden, shape.hidden)
        self.value = nn.Linear(shape.hidden, shape.hidden)
        self.out = nn.Linear(shape.hidden, shape.hidden)

    def __call__(self, x: mx.array, mask: mx.array) -> mx.array:
        rows, length, _ = x.shape

        def by_head(projected: mx.array) -> mx.array:
            return projected.reshape(rows, length, self.heads, -1).transpose(0, 2, 1, 3)

        seen = mx.fast.scaled_dot_product_attention(
            *(by_head(project(x)) for project in (self.query, self.key, self.value)),
            scale=self.scale,
            mask=mask,
        )
        joined: mx.array = self.out(seen.transpose(0, 2, 1, 3).reshape(rows, length, -1))
        return joined


class _Layer(nn.Module):  # type: ignore[misc]
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention = _Attention(shape)
        self.attention_norm = nn.LayerNorm(shape.hidden, eps=shape.epsilon)
        self.up = nn.Linear(shape.hidden, shape.feed_forward)
        self.down = nn.Linear(shape.feed_forward, shape.hidden)
        self.norm = nn.LayerNorm(shape.hidden, eps=shape.epsilon)
        self._activation = _ACTIVATIONS[shape.activation]

    def __call__(self, x: mx.array, mask: mx.array) -> mx.array:
        x = self.attention_norm(x + self.attention(x, mask))
        x = self.norm(x + self.down(self._activation(self.up(x))))
        return x


class Encoder(nn.Module):  # type: ignore[misc]
    """Tokens to the last layer's numbers for each of them."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self._first = shape.first
        self.words = nn.Embedding(shape.vocabulary, shape.hidden)
        self.positions = nn.Embedding(shape.positions, shape.hidden)
        self.types = nn.Embedding(shape.types, shape.hidden)
        self.norm = nn.LayerNorm(shape.hidden, eps=shape.epsilon)
        self.layers = [_Layer(shape) for _ in range(shape.layers)]

    def __call__(self, tokens: mx.array, present: mx.array) -> mx.array:
        """Both rows x length; `present` is False where a row is padded, at its end."""
        positions = mx.arange(self._first, self._first + tokens.shape[1])
        found = (
            self.words(tokens) + self.positions(positions) + self.types(mx.zeros((1, 1), mx.int32))
        )
        x: mx.array = self.norm(found)
        mask = present[:, None, None, :]
        for layer in self.layers:
            x = layer(x, mask)
        return x


def load(path: Path, config: Mapping[str, Any]) -> Encoder:
    """Not evaluated yet. Raises KeyError and ValueError for what does not fit together."""
    encoder = Encoder(Shape.of(config))
    found: dict[str, mx.array] = {}
    for file in sorted(path.glob("*.safetensors")):
        loaded: Any = mx.load(str(file))
        found.update(_renamed(loaded))
    if quantised := config.get("quantization"):
        nn.quantize(
            encoder,
            quantised["group_size"],
            quantised["bits"],
            class_predicate=lambda name, _: f"{name}.scales" in found,
        )
    encoder.load_weights(list(found.items()))
    return encoder


def _renamed(weights: Mapping[str, mx.array]) -> dict[str, mx.array]:
    found = {}
    for name, weight in weights.items():
        name = name.removeprefix("bert.").removeprefix("roberta.")
        if name.startswith(_UNUSED):
            continue
        for theirs, ours in _RENAMED:
            name = name.replace(theirs, ours)
        found[name] = weight
    return found
