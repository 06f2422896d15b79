"""What a model's files say of the memory that it takes. Reads no weights, needs no MLX."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import weights
from ..media import MAX_PIXELS
from . import vision
from .args import DType
from .diffusion.room import Room

#: Of a model whose config does not tell.
UNKNOWN_CONTEXT = 4096
_WIDTHS = {"float32": 4, "float16": 2, "bfloat16": 2}
#: Bytes of a pixel while a picture is decoded: as it was stored, in colours, and turned upright.
_DECODING = 9
_HIDDEN = ("hidden_size", "n_embd", "d_model", "n_text_state")
#: What models that hear call it: Hugging Face's name, then MLX's.
_HEARS = {
    "layers": ("decoder_layers", "n_text_layer"),
    "heads": ("decoder_attention_heads", "n_text_head"),
    "sources": ("max_source_positions", "n_audio_ctx"),
    "targets": ("max_target_positions", "n_text_ctx"),
}


@dataclass(frozen=True, slots=True)
class Shape:
    """`weights` in bytes, as they are in memory. `width`: bytes of a number that is computed.

    `full`: numbers that a token adds to the state of all layers that look at everything; `window`:
    the same of layers that look back `reach` tokens only. Of models that paint, `side`: of a
    picture in pixels, and `canvas`: bytes that one is computed with.
    """

    weights: int
    quantised: bool
    width: int
    full: int
    window: int
    reach: int
    heads: int
    hidden: int
    inner: int
    context: int
    side: int = 0
    canvas: int = 0
    #: Bytes that pictures take: being decoded and looked at, and what is kept of them.
    pictures: int = 0

    @property
    def per_token(self) -> int:
        """Bytes that a token of a long prompt adds."""
        return self.full * self.width

    def request(self, context: int) -> str:
        """In words."""
        side = self.side
        return f"picture of {side}x{side}" if side else f"request with {context} tokens"

    def state(self, tokens: int) -> int:
        """Bytes of the keys and values of one request."""
        return self.width * (self.full * tokens + self.window * min(tokens, self.reach))


def read(model: Path, dtype: DType, *, on_cpu: bool) -> Shape:
    """A config that does not tell leaves zeros, and nothing is counted for them."""
    if (model / weights.PIPELINE).is_file():
        return _paints(model, dtype, on_cpu=on_cpu)
    config = _config(model)
    tensors = list(weights.tensors(model))
    quantised = "quantization" in config or "quantization_config" in config
    width = _WIDTHS.get(dtype, 4 if on_cpu and not quantised else 0)
    taken = sum(one.numbers * width if width and one.width else one.bytes for one in tensors)
    left_out = vision.LLAMA if vision.sees(config) else {}
    text = {**config, **left_out, **_object(config.get("text_config"))}
    full, window = _layers(text)
    numbers = _numbers(text)
    return Shape(
        weights=taken,
        quantised=quantised,
        width=width or _usual(tensors),
        full=full * numbers,
        window=window * numbers,
        reach=_first(text, "sliding_window"),
        heads=_first(text, "num_attention_heads", "n_head", *_HEARS["heads"]),
        hidden=_first(text, *_HIDDEN),
        inner=_first(text, "intermediate_size", "n_inner", "decoder_ffn_dim"),
        context=_positions(text),
        pictures=_pictures(config, wide=on_cpu and quantised),
    )


def _paints(model: Path, dtype: DType, *, on_cpu: bool) -> Shape:
    """What becomes pixels has 32 bits wherever the rest is computed."""
    width, room = _WIDTHS.get(dtype, 4 if on_cpu else 2), Room.of(model)
    widths = ((path, 4 if path.parent.name == "vae" else width) for path in weights.files(model))
    taken = sum(one.numbers * size for path, size in widths for one in weights.within(path))
    text = _config(model / "text_encoder")
    return Shape(
        weights=taken, quantised=False, width=width, full=0, window=0, reach=0, heads=0, hidden=0,
        inner=0, context=_positions(text), side=room.side, canvas=room.bytes(),
    )  # fmt: skip


def _usual(tensors: list[weights.Tensor]) -> int:
    """The width of most floats."""
    widths: Counter[int] = Counter()
    for one in tensors:
        widths[one.width] += one.bytes if one.width else 0
    return max(widths, key=lambda width: widths[width], default=0) or 2


def _layers(text: Mapping[str, Any]) -> tuple[int, int]:
    """How many keep keys and values of everything, and how many of a window."""
    count = _first(text, *_HEARS["layers"], "num_hidden_layers", "n_layer", "num_layers")
    kinds = text.get("layer_types")
    if isinstance(kinds, list) and kinds:
        counted = Counter(map(str, kinds))
        return counted["full_attention"], counted["sliding_attention"]
    pattern = _first(text, "sliding_window_pattern")
    if pattern and _first(text, "sliding_window"):
        return count // pattern, count - count // pattern
    return count, 0


def _numbers(text: Mapping[str, Any]) -> int:
    """Of one token in one layer."""
    latent = _first(text, "kv_lora_rank")
    if latent:
        return latent + _first(text, "qk_rope_head_dim")
    heads = _first(text, "num_attention_heads", "n_head", *_HEARS["heads"])
    if not heads:
        return 0  # no attention
    size = _first(text, "head_dim") or _first(text, *_HIDDEN) // heads
    return 2 * (_first(text, "num_key_value_heads") or heads) * size


def _positions(text: Mapping[str, Any]) -> int:
    """Of text; of models that hear those of a window's sound too."""
    heard = _first(text, *_HEARS["sources"])
    if heard:
        return heard + _first(text, *_HEARS["targets"])
    return _first(text, "max_position_embeddings") or UNKNOWN_CONTEXT


def _pictures(config: Mapping[str, Any], *, wide: bool) -> int:
    """`wide`: eyes are computed in more bytes than their words."""
    if not vision.sees(config):
        return 0
    tower = _object(config.get("vision_config"))
    patches = (_first(tower, "image_size") // (_first(tower, "patch_size") or 1)) ** 2 + 1
    hidden, inner = _first(tower, *_HIDDEN), _first(tower, "intermediate_size")
    looking = 4 * patches * (6 * hidden + 2 * inner + patches)
    layers = _first(tower, "num_hidden_layers") if wide else 0
    wider = layers * 2 * hidden * (4 * hidden + 2 * inner)
    return vision.KEPT + _DECODING * MAX_PIXELS + looking + wider


def _first(text: Mapping[str, Any], *names: str) -> int:
    found = (text.get(name) for name in names)
    return next((one for one in found if isinstance(one, int) and one > 0), 0)


def _config(model: Path) -> dict[str, Any]:
    try:
        return _object(json.loads((model / "config.json").read_bytes()))
    except (OSError, ValueError):
        return {}


def _object(told: object) -> dict[str, Any]:
    return told if isinstance(told, dict) else {}
