"""POST /v1/images/generations and /v1/images/edits: what is asked, and its answer."""

from __future__ import annotations

import math
import re
from base64 import b64encode
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import orjson
from pydantic import Field, field_validator

from ..engines.media import Canvas, Painting
from . import forms
from .common import Strict, refuse_unsupported, validated

#: Pictures of one request, and pixels of a side: of 16 each, as models have them.
MAX_PICTURES, MIN_SIDE, MAX_SIDE, STEP = 10, 64, 2048, 16
#: Characters, as OpenAI bounds them.
MAX_PROMPT = 32_000
_SIZE = re.compile(r"([1-9]\d{1,3})x([1-9]\d{1,3})")
#: What can be said of it in a schema.
_SHOWN = "^(auto|[1-9][0-9]{1,3}x[1-9][0-9]{1,3})$"

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "background": ("auto", "opaque"),
    "complexity": (),
    "frame_count": (),
    "frame_duration_ms": (),
    "moderation": ("auto", "low"),
    "output_compression": (100, "100"),
    "output_format": ("png",),
    "partial_images": (0, "0"),
    "quality": ("auto",),
    "stream": (False, "false"),
    "style": (),
    "svg": (),
}


class Wish(Strict):
    """Fields of both kinds of requests."""

    model: str = Field(min_length=1, max_length=512)
    prompt: str = Field(min_length=1, max_length=MAX_PROMPT)
    n: int | None = Field(default=None, ge=1, le=MAX_PICTURES)
    size: str | None = Field(default=None, json_schema_extra={"pattern": _SHOWN})
    response_format: Literal["b64_json", "url"] | None = None
    seed: int | None = Field(default=None, ge=0, le=2**32 - 1)

    @field_validator("size")
    @classmethod
    def _known(cls, told: str | None) -> str | None:
        if told is not None and told != "auto" and _sides(told) is None:
            raise ValueError(
                f"must be auto or WIDTHxHEIGHT, each a multiple of {STEP} from {MIN_SIDE} to"
                f" {MAX_SIDE}"
            )
        return told

    def wanted(self, canvas: Canvas, files: Files) -> tuple[int, int]:
        """Width and height."""
        told = _sides(self.size) if self.size else None
        if told is not None:
            return told
        return canvas.natural if files.size is None else fitting(*files.size, canvas.ample)

    def painting(self, index: int, size: tuple[int, int], files: Files) -> Painting:
        """One of those that are wanted."""
        return Painting(self.prompt, *size, self.seed, files.sources, files.mask, index)


@dataclass(frozen=True, slots=True)
class Files:
    """What a picture is made from; their tokens, and the size of the first."""

    sources: tuple[bytes, ...] = ()
    mask: bytes | None = None
    tokens: int = 0
    size: tuple[int, int] | None = None


class GenerationRequest(Wish):
    """JSON."""

    IGNORED: ClassVar[frozenset[str]] = frozenset({"user", "safety_identifier", "metadata"})


class EditRequest(Wish, forms.FormBody):
    """A form."""

    NEUTRAL: ClassVar[dict[str, tuple[Any, ...]]] = {**_NEUTRAL, "input_fidelity": ("low",)}
    FILES: ClassVar[frozenset[str]] = frozenset({"image", "mask"})


def read(body: dict[str, Any]) -> GenerationRequest:
    """Raises BadRequest naming the field."""
    wanted = {k: value for k, value in body.items() if k not in GenerationRequest.IGNORED}
    refuse_unsupported(wanted, _NEUTRAL)
    return validated(GenerationRequest, wanted)


def _sides(size: str) -> tuple[int, int] | None:
    found = _SIZE.fullmatch(size)
    if found is None:
        return None
    width, height = int(found[1]), int(found[2])
    fits = all(MIN_SIDE <= side <= MAX_SIDE and not side % STEP for side in (width, height))
    return (width, height) if fits else None


def fitting(width: int, height: int, ample: int) -> tuple[int, int]:
    """The size that is possible and nearest to a picture's own, of no more than `ample` pixels."""
    scale = min(1.0, MAX_SIDE / max(width, height), math.sqrt(ample / (width * height)))
    steps = [side * scale / STEP for side in (width, height)]
    sides = [max(MIN_SIDE, round(step) * STEP) for step in steps]
    if math.prod(sides) > ample:
        sides = [max(MIN_SIDE, math.floor(step) * STEP) for step in steps]
    return sides[0], sides[1]


def tokens(width: int, height: int) -> int:
    """Of a picture: one for each field of 16 by 16 pixels, as models see and make them."""
    return -(-width // STEP) * -(-height // STEP)


@dataclass(frozen=True, slots=True)
class Used:
    """Tokens: of the prompt, of the files, of what was made."""

    text: int
    files: int
    made: int

    @property
    def read(self) -> int:
        return self.text + self.files


def whole(
    created: int, size: tuple[int, int], data: list[dict[str, str]], used: Used, request_id: str
) -> bytes:
    """`data`: one object for each picture."""
    usage = {
        "input_tokens": used.read,
        "input_tokens_details": {"image_tokens": used.files, "text_tokens": used.text},
        "output_tokens": used.made,
        "total_tokens": used.read + used.made,
    }
    answer = {
        "created": created,
        "data": data,
        "output_format": "png",
        "size": f"{size[0]}x{size[1]}",
        "usage": usage,
        "request_id": request_id,
    }
    return orjson.dumps(answer)


def encoded(png: bytes) -> dict[str, str]:
    return {"b64_json": b64encode(png).decode()}
