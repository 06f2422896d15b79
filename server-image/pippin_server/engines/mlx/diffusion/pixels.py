"""Files to pixels, and pixels to files. PNG, JPEG and WebP are read by FFmpeg's libraries."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
import numpy.typing as npt

from ...base import PromptRefused
from ...png import png
from .job import Pixels

#: How files begin -> FFmpeg's decoders; nothing else of what it can read is tried.
_DECODERS = {b"\x89PNG": "png", b"\xff\xd8\xff": "mjpeg", b"RIFF": "webp"}
#: Half a file is not half a picture; more pixels than a camera's are taken for an attack.
_OPTIONS = {"err_detect": "crccheck+explode", "max_pixels": "50000000"}
#: The filter that says how a byte differs from the likeliest of its neighbours, and zlib's level.
_PAETH, _LEVEL = 4, 6
_OPAQUE = 255


def read(content: bytes, name: str, size: tuple[int, int]) -> Pixels:
    """A picture in that width and height; what of it is transparent is white. `name`: of the field.
    Raises PromptRefused."""
    found = _decoded(content, name, size)
    return blended(found[..., :3], np.full_like(found[..., :3], 255), found[..., 3])


def kept(content: bytes, size: tuple[int, int]) -> Pixels:
    """How opaque a mask is, from 0 to 255. Raises PromptRefused."""
    found = _decoded(content, "mask", size)[..., 3]
    if found.min() == _OPAQUE:
        raise PromptRefused(
            "'mask' has no transparent part: make that transparent which is to be painted anew",
            "mask",
        )
    return found


def cells(opaque: Pixels, factor: int) -> npt.NDArray[np.bool_]:
    """Which latents, of so many pixels a side, stay as they are: those of which all does."""
    high, wide = (side // factor for side in opaque.shape)
    stays = opaque.reshape(high, factor, wide, factor) > _OPAQUE // 2
    found: npt.NDArray[np.bool_] = np.all(stays, axis=(1, 3)).reshape(1, high, wide, 1)
    return found


def blended(front: Pixels, back: Pixels, opaque: Pixels) -> Pixels:
    """The one before the other."""
    share = opaque[..., None].astype(np.uint16)
    mixed = front * share + back * (_OPAQUE - share) + _OPAQUE // 2
    found: Pixels = (mixed // _OPAQUE).astype(np.uint8)
    return found


def file(pixels: Pixels) -> bytes:
    """A PNG."""
    height, width, _ = pixels.shape
    whole = np.zeros((height + 1, width + 1, 3), dtype=np.int16)
    whole[1:, 1:] = pixels
    left, above, corner = whole[1:, :-1], whole[:-1, 1:], whole[:-1, :-1]
    likely = left + above - corner
    far = [np.abs(likely - one) for one in (left, above, corner)]
    nearest = np.where(
        (far[0] <= far[1]) & (far[0] <= far[2]), left, np.where(far[1] <= far[2], above, corner)
    )
    lines = np.full((height, 1 + 3 * width), _PAETH, dtype=np.uint8)
    lines[:, 1:] = (whole[1:, 1:] - nearest).astype(np.uint8).reshape(height, -1)
    return png(width, height, lines.tobytes(), _LEVEL)


def _decoded(content: bytes, name: str, size: tuple[int, int]) -> Pixels:
    """Rows x columns x red, green, blue and how opaque."""
    kind = next(kind for mark, kind in _DECODERS.items() if content.startswith(mark))
    try:
        decoder: Any = av.CodecContext.create(kind, "r")
        decoder.options = _OPTIONS
        frame = next(iter([*decoder.decode(av.Packet(content)), *decoder.decode(None)]), None)
    except (av.FFmpegError, ValueError) as error:
        raise _damaged(name, kind) from error
    if frame is None:
        raise _damaged(name, kind)
    found: Pixels = frame.to_ndarray(format="rgba", width=size[0], height=size[1])
    return found


def _damaged(name: str, kind: str) -> PromptRefused:
    said = {"mjpeg": "jpeg"}.get(kind, kind)
    return PromptRefused(f"'{name}' is a damaged {said}", name)
