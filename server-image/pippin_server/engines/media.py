"""What engines of sound and of pictures are asked and answer. No engine names, no OpenAI shapes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from .base import Engine

#: Of a picture that a chat shows: decoders make gigabytes of a few bytes.
MAX_PIXELS = 25_000_000


@dataclass(frozen=True, slots=True)
class Recording:
    """A file of sound as it was sent, what it is (wav, mp3, …), and how long it lasts."""

    content: bytes
    container: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Hearing:
    """How to write a recording down. `language`: ISO 639, None: found out; `prompt`: what was said
    before, or how names are spelt."""

    language: str | None = None
    prompt: str = ""
    temperature: float = 0.0
    #: Times of each word are wanted.
    words: bool = False


@dataclass(frozen=True, slots=True)
class Word:
    """Times in seconds from the recording's beginning, here and below."""

    text: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Passage:
    """Some words of a transcript, with the space before them. `tokens`: as the model has them;
    `temperature`: that they were chosen at."""

    text: str
    start: float
    end: float
    words: tuple[Word, ...]
    tokens: tuple[int, ...]
    language: str
    avg_logprob: float = 0.0
    no_speech_prob: float = 0.0
    temperature: float = 0.0


class Transcriber(Engine, ABC):
    """An engine that writes down what is said."""

    @abstractmethod
    def transcribe(self, recording: Recording, hearing: Hearing) -> AsyncGenerator[Passage, None]:
        """Passage by passage, at least one, which is empty where nothing is said. Raises
        EngineError; closed, it ends its work."""


@dataclass(frozen=True, slots=True)
class Painting:
    """A picture that is wanted, in pixels. `seed`: of what is left to chance; None: any. `sources`:
    the files that it is made from; `mask`: the file whose transparent part is where the first of
    them may change; `index`: of several that are wanted at once, each another."""

    prompt: str
    width: int
    height: int
    seed: int | None
    sources: tuple[bytes, ...] = ()
    mask: bytes | None = None
    index: int = 0


@dataclass(frozen=True, slots=True)
class Canvas:
    """What size a picture has where nobody says: `natural`, width and height; or that of the one
    that it is made from, of no more than `ample` pixels."""

    natural: tuple[int, int]
    ample: int


class Painter(Engine, ABC):
    """An engine that makes pictures."""

    #: Known once loaded.
    canvas: Canvas

    @abstractmethod
    async def paint(self, painting: Painting) -> bytes:
        """A PNG. Raises EngineError; cancelled, it ends its work."""

    @abstractmethod
    def tokens(self, text: str) -> int:
        """As many tokens as the model reads for a prompt."""
