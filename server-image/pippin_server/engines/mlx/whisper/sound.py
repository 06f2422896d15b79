"""A recording's samples, one after the other: decoded as far as they are needed, and no further."""

from __future__ import annotations

import io
import math
from collections.abc import Generator, Iterator
from typing import Any

import av
import numpy as np

from ...base import PromptRefused
from ...media import Recording
from .mel import HERTZ, Floats

#: Ours of containers -> the library's: nothing else of what it can read is tried.
_FORMATS = {"wav": "wav", "mp3": "mp3", "flac": "flac", "m4a": "mov", "ogg": "ogg"}
#: Pieces that may be damaged before anything was heard.
_MOST_DAMAGED = 20


class Sound:
    """In one thread. What a header promised is the most that is read: decoders can make hours of a
    few bytes."""

    def __init__(self, recording: Recording) -> None:
        """Raises PromptRefused."""
        self._container = recording.container
        self._left = math.ceil(recording.seconds * HERTZ)
        self._pieces = self._decoded(recording.content)
        self._kept: Floats = np.zeros(0, dtype=np.float32)
        self._from = 0

    def window(self, start: int, length: int) -> Floats:
        """Up to so many samples from there on; none: it is over. What comes before is forgotten, so
        `start` may not go back. Raises PromptRefused."""
        end = start + length
        parts = [self._kept]
        have = self._from + len(self._kept)
        while have < end and (piece := next(self._pieces, None)) is not None:
            parts.append(piece)
            have += len(piece)
        whole = np.concatenate(parts)
        self._kept, self._from = whole[start - self._from :], start
        return self._kept[:length]

    def close(self) -> None:
        self._pieces.close()

    def _decoded(self, content: bytes) -> Generator[Floats, None, None]:
        heard = False
        try:
            with av.open(io.BytesIO(content), format=_FORMATS[self._container]) as file:
                for piece in self._resampled(file):
                    heard = True
                    yield piece[: self._left]
                    self._left -= len(piece)
                    if self._left <= 0:
                        return
        except (av.FFmpegError, ValueError, IndexError) as error:
            raise self._damaged() from error
        if not heard:
            raise self._damaged()

    def _resampled(self, file: Any) -> Iterator[Floats]:
        """One channel at 16 kHz."""
        stream = file.streams.audio[0]
        resampler = av.AudioResampler(format="flt", layout="mono", rate=HERTZ)
        for frame in self._frames(file, stream):
            for made in resampler.resample(frame):
                yield made.to_ndarray()[0]
        for made in resampler.resample(None):
            yield made.to_ndarray()[0]

    def _frames(self, file: Any, stream: Any) -> Iterator[Any]:
        """A damaged piece of a recording is passed over, as players do."""
        good = damaged = 0
        for packet in file.demux(stream):
            try:
                frames = packet.decode()
            except av.InvalidDataError:
                damaged += 1
                if damaged - good > _MOST_DAMAGED:
                    raise
                continue
            good += len(frames)
            yield from frames

    def _damaged(self) -> PromptRefused:
        return PromptRefused(f"'file' is a damaged {self._container}", "file")
