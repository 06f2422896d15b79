"""The echo engine's transcripts and pictures.

A transcript counts a recording's seconds, one word each. A picture is made of a hash of what was
asked for, so that the same is always the same; it is a real PNG.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Iterator
from hashlib import sha256, shake_128

from .echo import Echo, pause
from .media import Canvas, Hearing, Painter, Painting, Passage, Recording, Transcriber, Word
from .png import png

#: Words of a passage.
_WORDS = 10
#: Fields of a picture in a row, and rows of them.
_FIELDS = 8
_CANVAS = Canvas((1024, 1024), 2048**2)


class EchoTranscriber(Echo, Transcriber):
    """Hears the seconds go by."""

    async def transcribe(
        self, recording: Recording, hearing: Hearing
    ) -> AsyncGenerator[Passage, None]:
        async with self._at_work() as work:
            speed = self.knobs.tokens_per_second
            for passage in _passages(recording.seconds, hearing):
                await pause(len(passage.words) / speed if speed else 0, work.stopped)
                self._progressed_at = self._clock()
                yield passage
                work.over(math.ceil(passage.end), math.ceil(recording.seconds))


def _passages(seconds: float, hearing: Hearing) -> Iterator[Passage]:
    count = math.ceil(seconds)
    for first in range(0, count, _WORDS):
        numbers = range(first + 1, min(first + _WORDS, count) + 1)
        words = tuple(Word(str(n), n - 1.0, min(float(n), seconds)) for n in numbers)
        yield Passage(
            text="".join(f" {word.text}" for word in words),
            start=words[0].start,
            end=words[-1].end,
            words=words,
            tokens=tuple(numbers),
            language=hearing.language or "en",
            temperature=hearing.temperature,
        )


class EchoPainter(Echo, Painter):
    """Paints fields of colour. The knob `tokens_per_second` is pictures here."""

    canvas = _CANVAS

    async def paint(self, painting: Painting) -> bytes:
        async with self._at_work() as work:
            speed = self.knobs.tokens_per_second
            await pause(1 / speed if speed else 0, work.stopped)
            work.over(1, 1)
            made = await asyncio.to_thread(_painted, painting)
            self._progressed_at = self._clock()
            return made

    def tokens(self, text: str) -> int:
        return len(text.split())


def _painted(painting: Painting) -> bytes:
    """8 bits of red, green and blue; rows that are alike are made once."""
    wide, high = painting.width, painting.height
    colours = shake_128(_essence(painting)).digest(3 * _FIELDS * _FIELDS)
    rows = []
    for row in range(_FIELDS):
        line = b"".join(
            colours[at : at + 3] * _share(column, wide)
            for column in range(_FIELDS)
            for at in [3 * (row * _FIELDS + column)]
        )
        rows.append((b"\0" + line) * _share(row, high))
    return png(wide, high, b"".join(rows), level=1)


def _essence(painting: Painting) -> bytes:
    files = [sha256(file).hexdigest() for file in (*painting.sources, painting.mask or b"")]
    seed = (painting.seed or 0) + painting.index
    return repr((painting.prompt, seed, files)).encode()


def _share(index: int, whole: int) -> int:
    """How many of all pixels are one field's."""
    return whole * (index + 1) // _FIELDS - whole * index // _FIELDS
