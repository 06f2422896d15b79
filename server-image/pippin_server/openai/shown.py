"""The parts of a message: words, and pictures, which come along in the request.

Nothing is fetched from anywhere: who could make this server ask for a URL could look with it where
it may look, and they may not. What a picture takes is bounded before it is decoded.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from pippin_edge.errors import BadRequest

from ..engines.base import Message, Shown
from ..engines.media import MAX_PIXELS
from ..media import exif, pictures
from .common import Strict

#: Pictures of one request.
MAX_PICTURES = 16
#: Of one, as it was sent. Requests have a cap of their own.
MAX_BYTES = 8 * 2**20
#: A side that is so much longer than the other is no picture, and splits into very many pieces.
MAX_RATIO = 50
_DATA = re.compile(r"data:(image/[\w.+-]{1,64})?(;[\w-]{1,64}=[\w.-]{1,64})*;base64,")


class TextPart(Strict):
    type: Literal["text"]
    text: str

    def plain(self, where: str) -> str:
        return self.text


class ImageURL(Strict):
    """Only `data:` URLs: see above. `detail` low: a rough look, where the model has one."""

    url: str = Field(json_schema_extra={"pattern": "^data:image/.*;base64,"})
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(Strict):
    type: Literal["image_url"]
    image_url: ImageURL

    def plain(self, where: str) -> Shown:
        """Raises BadRequest."""
        param = f"{where}.image_url.url"
        content = _decoded(self.image_url.url, param)
        try:
            found = pictures.picture(content, pictures.MOVING)
        except pictures.Unreadable as error:
            raise _wrong(param, f"the file {error}") from error
        _bounded(found, param)
        orientation = exif.orientation(content, found.kind)
        size = found[:0:-1] if orientation in exif.TURNED else found[1:]
        coarse = self.image_url.detail == "low"
        return Shown(content, found.kind, orientation, *size, coarse=coarse, where=param)


def part_tag(told: Any) -> str | None:
    kind = told.get("type") if isinstance(told, dict) else None
    return {"text": "text-part", "image_url": "image-part"}.get(str(kind))


def counted(messages: Sequence[Message]) -> None:
    """Raises BadRequest for too many pictures."""
    shown = [part for one in messages for part in one.parts if isinstance(part, Shown)]
    if len(shown) > MAX_PICTURES:
        raise _wrong(
            shown[MAX_PICTURES].where,
            f"the request has {len(shown)} pictures, and at most {MAX_PICTURES} are read",
        )


def _decoded(url: str, param: str) -> bytes:
    head = _DATA.match(url)
    if head is None:
        raise _wrong(param, "must be data:image/…;base64,… (nothing is fetched from other URLs)")
    # Four letters are three bytes: the rest need not be looked at.
    if (len(url) - head.end()) * 3 // 4 > MAX_BYTES + 2:
        raise _wrong(param, f"the file is larger than {MAX_BYTES >> 20} MiB: send a smaller one")
    try:
        return base64.b64decode(url[head.end() :], validate=True)
    except binascii.Error as error:
        raise _wrong(param, f"is no base64: {error}") from error


def _bounded(found: pictures.Picture, param: str) -> None:
    size = f"the picture has {found.width} x {found.height} pixels"
    if found.width * found.height > MAX_PIXELS:
        raise _wrong(param, f"{size}, and at most {MAX_PIXELS} are read: send a smaller one")
    if max(found.width, found.height) > MAX_RATIO * min(found.width, found.height):
        raise _wrong(param, f"{size}: one side may be {MAX_RATIO} times the other at most")


def _wrong(param: str, what: str) -> BadRequest:
    return BadRequest(f"'{param}': {what}", param=param, code="invalid_value")
