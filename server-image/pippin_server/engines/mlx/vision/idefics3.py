"""Idefics3 and SmolVLM: a picture in tiles, each looked at by SigLIP, and a Llama that reads them.

mlx_lm does not know these families; of what it knows their language model is an ordinary Llama.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import llama

from ...base import Shown
from . import LLAMA
from .eyes import Eyes, Levels, Plan, Steps
from .resizing import FILTERS, Pixels, resized
from .tower import Shape, Tower

_TEXT = ("model.text_model.", "language_model.")
#: Pixels of a picture's longer side, at most, whatever a config says.
_LONGEST = 4096
#: SigLIP's.
_HALF = (0.5, 0.5, 0.5)
_AROUND, _WHOLE = "<fake_token_around_image>", "<global-img>"


class TextArgs(llama.ModelArgs):  # type: ignore[misc]
    @classmethod
    def from_dict(cls, params: dict[str, Any]) -> llama.ModelArgs:
        told = {**LLAMA, **params["text_config"], "tie_word_embeddings": False}
        return llama.ModelArgs.from_dict(told)


class Text(llama.Model):  # type: ignore[misc]
    """The words' part."""

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        found = {}
        for name, weight in weights.items():
            name = name.replace("language_model.lm_head.", "lm_head.")
            for beginning in _TEXT:
                if name.startswith(beginning):
                    name = "model." + name.removeprefix(beginning).removeprefix("model.")
            if name.startswith("lm_head.") or _is_text(name):
                found[name] = weight
        if "lm_head.weight" not in found:  # configs contradict themselves; files do not
            self.args.tie_word_embeddings = True
            self.pop("lm_head")
        sane: dict[str, mx.array] = super().sanitize(found)
        return sane


def _is_text(name: str) -> bool:
    return name.startswith(("model.layers.", "model.embed_tokens.", "model.norm."))


class _Projection(nn.Module):  # type: ignore[misc]
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.proj = nn.Linear(inputs, outputs, bias=False)


class _Connector(nn.Module):  # type: ignore[misc]
    """Patches that lie together become one token."""

    def __init__(self, hidden: int, factor: int, outputs: int) -> None:
        super().__init__()
        self._factor = factor
        self.modality_projection = _Projection(hidden * factor**2, outputs)

    def __call__(self, x: mx.array) -> mx.array:
        factor, hidden = self._factor, x.shape[-1]
        side = math.isqrt(x.shape[1]) // factor
        square = x.reshape(side, factor, side, factor, hidden)
        joined = square.transpose(0, 2, 1, 3, 4).reshape(side * side, factor**2 * hidden)
        made: mx.array = self.modality_projection.proj(joined)
        return made


class _Net(nn.Module):  # type: ignore[misc]
    def __init__(self, shape: Shape, factor: int, outputs: int) -> None:
        super().__init__()
        self.vision_model = Tower(shape)
        self.connector = _Connector(shape.hidden, factor, outputs)


class Idefics3(Eyes):
    """See the module."""

    def __init__(self, config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> None:
        """Raises KeyError and ValueError for what does not fit together."""
        shape = Shape.of(config["vision_config"], sums=False)
        factor = config["scale_factor"]
        text = {**LLAMA, **config["text_config"]}
        self.token = config["image_token_id"]
        self.net = _Net(shape, factor, text["hidden_size"])
        self._layers = shape.layers
        self._each = (shape.side // factor) ** 2
        self._tile: int = preprocessor["max_image_size"]["longest_edge"]
        self._longest: int = preprocessor["size"]["longest_edge"]
        self._splits: bool = preprocessor.get("do_image_splitting", True)
        self._filter: int = preprocessor.get("resample", 1)
        self._levels = Levels.of(preprocessor, _HALF, _HALF)
        if self._tile != shape.tile or shape.side % factor or self._filter not in FILTERS:
            raise ValueError("the preprocessor's config is not that of this vision tower")

    def plan(self, shown: Shown) -> Plan:
        if not self._splits or shown.coarse:
            return Plan(0, 0, self._each)
        height, width = self._whole(*self._long(shown.height, shown.width))
        rows, columns = height // self._tile, width // self._tile
        if rows * columns == 1:
            rows = columns = 0
        return Plan(rows, columns, self._each * (rows * columns + 1))

    def text(self, plan: Plan) -> str:
        marks = self.mark * self._each
        whole = f"{_AROUND}{_WHOLE}{marks}{_AROUND}"
        if plan.tiles == 1:
            return whole
        lines = (
            "".join(f"{_AROUND}<row_{row}_col_{column}>{marks}" for column in _to(plan.columns))
            for row in _to(plan.rows)
        )
        return "".join(f"{line}\n" for line in lines) + f"\n{whole}"

    def tiles(self, pixels: Pixels, plan: Plan) -> list[Pixels]:
        side = self._tile
        height, width = self._long(*pixels.shape[:2])
        pixels = resized(pixels, height, width, self._filter)
        if plan.tiles == 1:
            return [resized(pixels, side, side, self._filter)]
        pixels = resized(pixels, *self._whole(height, width), self._filter)
        found = [
            pixels[row * side : (row + 1) * side, column * side : (column + 1) * side]
            for row in range(plan.rows)
            for column in range(plan.columns)
        ]
        return [*found, resized(pixels, side, side, self._filter)]

    def reader(self, model: Any) -> Any:
        return model.model

    def look(self, tile: Pixels) -> Steps:
        tower = self.net.vision_model
        x = yield from tower.look(self._levels(tile), self._layers)
        return self.net.connector(tower.post_layernorm(x))  # type: ignore[no-any-return]

    def _long(self, height: int, width: int) -> tuple[int, int]:
        """The longer side as long as the config says, the other in proportion, and even."""
        ratio, longest = width / height, self._longest
        if width >= height:
            height, width = _even(int(longest / ratio)), longest
        else:
            height, width = longest, _even(int(longest * ratio))
        most = max(height, width)
        if most > _LONGEST:
            ratio = width / height
            wide = width >= height
            height = int(_LONGEST / ratio) if wide else _LONGEST
            width = _LONGEST if wide else int(_LONGEST * ratio)
        return max(height, 1), max(width, 1)

    def _whole(self, height: int, width: int) -> tuple[int, int]:
        """Both sides are whole tiles."""
        ratio = width / height
        if width >= height:
            width = self._up(width)
            return self._up(int(width / ratio)), width
        height = self._up(height)
        return height, self._up(int(height * ratio))

    def _up(self, length: int) -> int:
        return math.ceil(length / self._tile) * self._tile


def _even(length: int) -> int:
    return max(length + length % 2, 1)


def _to(count: int) -> range:
    return range(1, count + 1)
