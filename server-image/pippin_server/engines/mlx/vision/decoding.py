"""From a picture's file to its pixels."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import av

from ...base import PromptRefused, Shown
from .resizing import Pixels

#: Ours of kinds -> the library's codecs: nothing else of what it can read is tried.
_CODECS = {"png": "png", "jpeg": "mjpeg", "webp": "webp", "gif": "gif"}
#: Exif's numbers of pictures whose rows are columns.
_TURNED = range(5, 9)
#: Pixels by which decoders' own pictures are wider and higher.
_EDGE = 64


def decoded(shown: Shown) -> Pixels:
    """Upright, as cameras note it; of a moving picture the first. Raises PromptRefused."""
    try:
        frame = next(_frames(shown))
        pixels: Pixels = frame.to_ndarray(format="rgb24")
    except (av.FFmpegError, ValueError, StopIteration) as error:
        raise _damaged(shown) from error
    upright = _upright(pixels, shown.orientation)
    if upright.shape != (shown.height, shown.width, 3):  # its header was believed until here
        raise _damaged(shown)
    return upright


def _frames(shown: Shown) -> Iterator[Any]:
    # A header that only the library understands cannot ask for more than ours has told.
    most = {"max_pixels": str((shown.width + _EDGE) * (shown.height + _EDGE))}
    if shown.kind == "gif":  # the only one that is not one packet
        source: Any = io.BytesIO(shown.content)
        with av.open(source, mode="r", format="gif", options=most) as file:
            yield from file.decode(video=0)
        return
    codec: Any = av.CodecContext.create(_CODECS[shown.kind], "r")
    codec.options = most
    codec.thread_count = 1  # or the first frame comes with the second
    yield from codec.decode(av.Packet(shown.content))
    yield from codec.decode(None)


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """By Exif's number of where the first row and the first column are."""
    if orientation in _TURNED:
        pixels = pixels.transpose(1, 0, 2)
    down = -1 if orientation in (3, 4, 7, 8) else 1
    across = -1 if orientation in (2, 3, 6, 7) else 1
    return pixels[::down, ::across]


def _damaged(shown: Shown) -> PromptRefused:
    return PromptRefused(
        f"'{shown.where}' is a damaged {shown.kind}, or a kind of it that cannot be read",
        shown.where,
    )
