"""What a loaded Whisper is made of."""

from __future__ import annotations

from dataclasses import dataclass

from .net import Head, Whisper
from .rules import Rules
from .vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Model:
    """`window`: samples that it hears at once, in `bands`; `limit`: tokens of its context;
    `heads`: those of its decoder that look at what is being said."""

    net: Whisper
    vocabulary: Vocabulary
    window: int
    bands: int
    limit: int
    heads: frozenset[Head]

    @property
    def rules(self) -> Rules:
        words = self.vocabulary
        return Rules(words.end, words.times, words.never, words.never_first, words.latest_first)
