"""The network: what 30 seconds sound like in numbers, and the words that follow from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from .. import exponentials

#: MLX's own names of the weights -> Hugging Face's, in this order.
_RENAMED = (
    (".blocks.", ".layers."),
    (".cross_attn_ln.", ".encoder_attn_layer_norm."),
    (".cross_attn.", ".encoder_attn."),
    (".attn_ln.", ".self_attn_layer_norm."),
    (".attn.", ".self_attn."),
    (".query.", ".q_proj."),
    (".key.", ".k_proj."),
    (".value.", ".v_proj."),
    (".out.", ".out_proj."),
    (".mlp_ln.", ".final_layer_norm."),
    (".mlp1.", ".fc1."),
    (".mlp2.", ".fc2."),
    (".ln_post.", ".layer_norm."),
    ("decoder.ln.", "decoder.layer_norm."),
    (".token_embedding.", ".embed_tokens."),
    (".positional_embedding", ".embed_positions.weight"),
)
#: In MLX's files: which heads know when words were said.
ALIGNMENT_HEADS = "alignment_heads"
#: The words' matrix is used twice.
_UNUSED = ("proj_out.", ALIGNMENT_HEADS)
#: Samples that a filter of the first two layers looks at.
_KERNEL = 3


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers of a config.json. `sources`: steps of 20 ms in a window; `targets`: tokens."""

    bands: int
    hidden: int
    sources: int
    targets: int
    vocabulary: int
    encoder: tuple[int, int]
    decoder: tuple[int, int]

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """Layers and heads of both halves. Raises KeyError and ValueError."""
        if config.get("activation_function", "gelu") != "gelu":
            raise ValueError(f"{config['activation_function']!r} is not known here")
        if "n_mels" in config:
            return cls._of_mlx(config)
        return cls(
            bands=config["num_mel_bins"],
            hidden=config["d_model"],
            sources=config["max_source_positions"],
            targets=config["max_target_positions"],
            vocabulary=config["vocab_size"],
            encoder=(config["encoder_layers"], config["encoder_attention_heads"]),
            decoder=(config["decoder_layers"], config["decoder_attention_heads"]),
        )

    @classmethod
    def _of_mlx(cls, config: Mapping[str, Any]) -> Shape:
        return cls(
            bands=config["n_mels"],
            hidden=config["n_text_state"],
            sources=config["n_audio_ctx"],
            targets=config["n_text_ctx"],
            vocabulary=config["n_vocab"],
            encoder=(config["n_audio_layer"], config["n_audio_head"]),
            decoder=(config["n_text_layer"], config["n_text_head"]),
        )


#: Keys and values, each rows x heads x length x numbers.
Pair = tuple[mx.array, mx.array]
#: Of the decoder: its layer, and its number there.
Head = tuple[int, int]


class Memory:
    """A layer's keys and values of the text so far; mlx_lm has such, and takes long to import."""

    def __init__(self) -> None:
        self._pair: Pair | None = None

    def __len__(self) -> int:
        return 0 if self._pair is None else self._pair[0].shape[2]

    def add(self, pair: Pair) -> Pair:
        """All of them."""
        if self._pair is not None:
            before = self._pair
            pair = mx.concatenate([before[0], pair[0]], 2), mx.concatenate([before[1], pair[1]], 2)
        self._pair = pair
        return pair


class _Attention(nn.Module):  # type: ignore[misc]
    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (hidden // heads) ** -0.5
        self.q_proj = nn.Linear(hidden, hidden)
        self.k_proj = nn.Linear(hidden, hidden, bias=False)
        self.v_proj = nn.Linear(hidden, hidden)
        self.out_proj = nn.Linear(hidden, hidden)

    def pair(self, x: mx.array) -> Pair:
        return self._by_head(self.k_proj(x)), self._by_head(self.v_proj(x))

    def __call__(self, x: mx.array, seen: Pair, mask: str | None = None) -> mx.array:
        rows, length, _ = x.shape
        asked = self._by_head(self.q_proj(x))
        if mask is None:
            found = exponentials.attention(asked, *seen, self.scale)
        else:
            found = mx.fast.scaled_dot_product_attention(asked, *seen, scale=self.scale, mask=mask)
        joined: mx.array = self.out_proj(found.transpose(0, 2, 1, 3).reshape(rows, length, -1))
        return joined

    def scores(self, x: mx.array, keys: mx.array, heads: list[int]) -> mx.array:
        """Where these heads look, as logits: heads x length x what is seen. Of one row."""
        asked = self._by_head(self.q_proj(x))[0, heads]
        seen = keys[0, heads].astype(mx.float32)
        looks: mx.array = (asked.astype(mx.float32) @ seen.swapaxes(1, 2)) * self.scale
        return looks

    def _by_head(self, x: mx.array) -> mx.array:
        rows, length, _ = x.shape
        return x.reshape(rows, length, self.heads, -1).transpose(0, 2, 1, 3)


class _Layer(nn.Module):  # type: ignore[misc]
    def __init__(self, hidden: int, heads: int, *, hears: bool) -> None:
        super().__init__()
        self.self_attn = _Attention(hidden, heads)
        self.self_attn_layer_norm = nn.LayerNorm(hidden)
        if hears:
            self.encoder_attn = _Attention(hidden, heads)
            self.encoder_attn_layer_norm = nn.LayerNorm(hidden)
        self.fc1 = nn.Linear(hidden, 4 * hidden)
        self.fc2 = nn.Linear(4 * hidden, hidden)
        self.final_layer_norm = nn.LayerNorm(hidden)

    def __call__(
        self, x: mx.array, memory: Memory | None = None, heard: Pair | None = None
    ) -> mx.array:
        x = self.remember(x, memory)
        if heard is not None:
            x = x + self.encoder_attn(self.encoder_attn_layer_norm(x), heard)
        return self.think(x)

    def remember(self, x: mx.array, memory: Memory | None) -> mx.array:
        y = self.self_attn_layer_norm(x)
        seen = self.self_attn.pair(y)
        if memory is not None:
            seen = memory.add(seen)
        several = memory is not None and x.shape[1] > 1
        return x + self.self_attn(y, seen, "causal" if several else None)

    def think(self, x: mx.array) -> mx.array:
        further: mx.array = self.fc2(exponentials.gelu(self.fc1(self.final_layer_norm(x))))
        return x + further


class _Encoder(nn.Module):  # type: ignore[misc]
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        layers, heads = shape.encoder
        hidden = shape.hidden
        self.conv1 = nn.Conv1d(shape.bands, hidden, _KERNEL, padding=1)
        self.conv2 = nn.Conv1d(hidden, hidden, _KERNEL, stride=2, padding=1)
        self.embed_positions = nn.Embedding(shape.sources, hidden)
        self.layers = [_Layer(hidden, heads, hears=False) for _ in range(layers)]
        self.layer_norm = nn.LayerNorm(hidden)

    def __call__(self, sound: mx.array) -> mx.array:
        x = (
            exponentials.gelu(self.conv2(exponentials.gelu(self.conv1(sound))))
            + self.embed_positions.weight
        )
        for layer in self.layers:
            x = layer(x)
        normed: mx.array = self.layer_norm(x)
        return normed


class _Decoder(nn.Module):  # type: ignore[misc]
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        layers, heads = shape.decoder
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.hidden)
        self.embed_positions = nn.Embedding(shape.targets, shape.hidden)
        self.layers = [_Layer(shape.hidden, heads, hears=True) for _ in range(layers)]
        self.layer_norm = nn.LayerNorm(shape.hidden)

    def embed(self, tokens: list[int], at: int) -> mx.array:
        positions = mx.arange(at, at + len(tokens))
        x: mx.array = self.embed_tokens(mx.array([tokens])) + self.embed_positions(positions)
        return x


class Whisper(nn.Module):  # type: ignore[misc]
    """Owned by one thread."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.encoder = _Encoder(shape)
        self.decoder = _Decoder(shape)

    def hear(self, sound: mx.array) -> list[Pair]:
        """Of a window, frames of 10 ms x bands, what each layer of the decoder looks at."""
        width = self.encoder.conv1.weight.dtype
        heard = self.encoder(sound[None].astype(width))
        pairs = (layer.encoder_attn.pair(heard) for layer in self.decoder.layers)
        # They are read again for every token, which goes several times faster so.
        return [(mx.contiguous(keys), mx.contiguous(values)) for keys, values in pairs]

    def memory(self) -> list[Memory]:
        """Of a text that has not begun."""
        return [Memory() for _ in self.decoder.layers]

    def read(self, tokens: list[int], memory: list[Memory], heard: list[Pair]) -> mx.array:
        """How likely each token of the vocabulary is to follow each of these, as logits."""
        decoder = self.decoder
        x = decoder.embed(tokens, len(memory[0]))
        for layer, own, pair in zip(decoder.layers, memory, heard, strict=True):
            x = layer(x, own, pair)
        logits: mx.array = decoder.embed_tokens.as_linear(decoder.layer_norm(x))[0]
        return logits.astype(mx.float32)

    def looks(
        self, tokens: list[int], heard: list[Pair], heads: frozenset[Head]
    ) -> Iterator[mx.array]:
        """Where heads look at each token of a text, layer by layer, as logits: heads x tokens x
        steps of 20 ms."""
        x = self.decoder.embed(tokens, 0)
        last = max(layer for layer, _ in heads)
        layers = zip(self.decoder.layers[: last + 1], heard, strict=False)
        for number, (layer, pair) in enumerate(layers):
            x = layer.remember(x, Memory())
            y = layer.encoder_attn_layer_norm(x)
            if wanted := sorted(head for at, head in heads if at == number):
                yield layer.encoder_attn.scores(y, pair[0], wanted)
            x = layer.think(x + layer.encoder_attn(y, pair))


def load(path: Path, config: Mapping[str, Any]) -> Whisper:
    """Not evaluated yet. Raises KeyError and ValueError for what does not fit together."""
    shape = Shape.of(config)
    model = Whisper(shape)
    found: dict[str, mx.array] = {}
    for file in sorted(path.glob("*.safetensors")):
        loaded: Any = mx.load(str(file))
        found.update(_renamed(loaded))
    found.setdefault("encoder.embed_positions.weight", _waves(shape.sources, shape.hidden))
    if quantised := config.get("quantization"):
        nn.quantize(
            model,
            quantised["group_size"],
            quantised["bits"],
            class_predicate=lambda name, _: f"{name}.scales" in found,
        )
    model.load_weights(list(found.items()))
    return model


def _renamed(weights: Mapping[str, mx.array]) -> dict[str, mx.array]:
    found = {}
    for name, weight in weights.items():
        name = name.removeprefix("model.")
        if name.startswith(_UNUSED):
            continue
        for theirs, ours in _RENAMED:
            name = name.replace(theirs, ours)
        if ".conv" in name and weight.ndim == 3 and weight.shape[-1] == _KERNEL:
            weight = weight.transpose(0, 2, 1)
        found[name] = weight
    return found


def _waves(length: int, hidden: int) -> mx.array:
    """Positions that nobody learnt, of files that leave them out."""
    slower = mx.exp(-mx.log(mx.array(10000.0)) / (hidden // 2 - 1) * mx.arange(hidden // 2))
    angles = mx.arange(length)[:, None] * slower[None]
    return mx.concatenate([mx.sin(angles), mx.cos(angles)], axis=1)
