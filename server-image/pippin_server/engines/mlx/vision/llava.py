"""LLaVA 1.5: a picture in one square, seen by CLIP, and a Llama that reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models import mistral3

from ...base import Shown
from . import LLAMA
from .eyes import Eyes, Levels, Plan, Steps
from .resizing import FILTERS, Pixels, resized
from .tower import Shape, Tower

#: CLIP's.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
_CUBIC = 3


class TextArgs(mistral3.ModelArgs):  # type: ignore[misc]
    """As mlx_lm serves them, with what Hugging Face's configs leave out."""

    @classmethod
    def from_dict(cls, params: dict[str, Any]) -> mistral3.ModelArgs:
        told = {**LLAMA, **params["text_config"]}
        return mistral3.ModelArgs.from_dict({**params, "text_config": told})


class _Projector(nn.Module):  # type: ignore[misc]
    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(inputs, outputs, bias=bias)
        self.linear_2 = nn.Linear(outputs, outputs, bias=bias)

    def __call__(self, x: mx.array) -> mx.array:
        made: mx.array = self.linear_2(nn.gelu(self.linear_1(x)))
        return made


class _Net(nn.Module):  # type: ignore[misc]
    def __init__(self, shape: Shape, outputs: int, bias: bool) -> None:
        super().__init__()
        self.vision_tower = Tower(shape)
        self.multi_modal_projector = _Projector(shape.hidden, outputs, bias)


class Llava(Eyes):
    """See the module. There is one size of picture, so a rough look is like any."""

    def __init__(self, config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> None:
        """Raises KeyError and ValueError for what does not fit together."""
        shape = Shape.of(config["vision_config"], sums=True)
        text = {**LLAMA, **config["text_config"]}
        self.token = config.get("image_token_index") or config["image_token_id"]
        bias = config.get("multimodal_projector_bias", True)
        self.net = _Net(shape, text["hidden_size"], bias)
        layer: int = config.get("vision_feature_layer", -2)
        self._layers = layer if layer >= 0 else shape.layers + 1 + layer
        self._skips = config.get("vision_feature_select_strategy", "default") == "default"
        self._tokens = shape.side**2 + (not self._skips)
        self._side = shape.tile
        self._size: Mapping[str, int] = preprocessor.get("size") or {"shortest_edge": shape.tile}
        self._pads: bool = preprocessor.get("do_pad", False)
        self._filter: int = preprocessor.get("resample", _CUBIC)
        self._levels = Levels.of(preprocessor, _MEAN, _DEVIATION)
        if self._filter not in FILTERS or config.get("projector_hidden_act", "gelu") != "gelu":
            raise ValueError("a preprocessor or a projector of this kind is not known here")

    def plan(self, shown: Shown) -> Plan:
        return Plan(0, 0, self._tokens)

    def text(self, plan: Plan) -> str:
        return self.mark * plan.tokens

    def tiles(self, pixels: Pixels, plan: Plan) -> list[Pixels]:
        if self._pads:
            pixels = self._padded(pixels)
        height, width = pixels.shape[:2]
        short = self._size.get("shortest_edge")
        if short is None:
            pixels = resized(pixels, self._size["height"], self._size["width"], self._filter)
        elif width <= height:
            pixels = resized(pixels, int(short * height / width), short, self._filter)
        else:
            pixels = resized(pixels, short, int(short * width / height), self._filter)
        return [self._cropped(pixels)]

    def reader(self, model: Any) -> Any:
        return model.language_model.model

    def look(self, tile: Pixels) -> Steps:
        x = yield from self.net.vision_tower.look(self._levels(tile), self._layers)
        seen = x[0, 1:] if self._skips else x[0]
        return self.net.multi_modal_projector(seen)  # type: ignore[no-any-return]

    def _padded(self, pixels: Pixels) -> Pixels:
        """A square of the usual colour, the picture in its middle."""
        height, width = pixels.shape[:2]
        side = max(height, width)
        colour = [int(one * 255) for one in self._levels.mean]
        square = np.full((side, side, 3), colour, dtype=np.uint8)
        down, across = (side - height) // 2, (side - width) // 2
        square[down : down + height, across : across + width] = pixels
        return square

    def _cropped(self, pixels: Pixels) -> Pixels:
        """The middle; black around it where there is less."""
        height, width = pixels.shape[:2]
        side = self._side
        more = max(side - height, 0), max(side - width, 0)
        if any(more):
            around = [(-(-one // 2), one // 2) for one in more]
            pixels = np.pad(pixels, [*around, (0, 0)])
            height, width = pixels.shape[:2]
        top, left = (height - side) // 2, (width - side) // 2
        return np.ascontiguousarray(pixels[top : top + side, left : left + side])
