"""When the words of a window were said: the decoder reads once more what it wrote, and is watched
where it looks."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...media import Passage, Word
from . import aligning, spelling
from .mel import HERTZ, Floats
from .model import Model
from .net import Pair
from .seeking import STEP

_SECONDS = STEP / HERTZ
#: Seconds of a word that lasts long, and how many times that a pause may not count for one.
_LONG, _TOO_LONG = 0.7, 2
#: Seconds by which the decoder may have written too early an end.
_NEAR = 0.5
_ENDS = (".", "。", "!", "！", "?", "？")


@dataclass(frozen=True, slots=True)
class Window:
    """What the decoder looks at, where it lies in the recording, and by how much the next one lies
    further, in samples."""

    heard: list[Pair]
    at: int
    further: int


def timed(
    model: Model, window: Window, passages: tuple[Passage, ...], language: str
) -> Generator[None, None, tuple[Passage, ...]]:
    """The passages with their words. Whoever iterates may leave after each layer."""
    read = model.vocabulary
    written = [[token for token in one.tokens if token < read.end] for one in passages]
    if not any(written):
        return passages
    said = [token for tokens in written for token in tokens]
    asking = [*read.asking(language), read.times - 1]  # without times
    likely = yield from _likely(model, window, [*asking, *said, read.end])
    # What follows a token is what is looked for when it is read.
    begins = aligning.begins(likely[len(asking) - 1 : -1])
    times = [window.at / HERTZ + step * _SECONDS for step in begins]
    found, done = [], 0
    for tokens in written:
        spelt = spelling.words(tokens, read.text, language)
        found.append([Word(w.text, times[done + w.begin], times[done + w.end]) for w in spelt])
        done += len(tokens)
    longest = _longest(found)
    return tuple(
        _fitted(passage, _settled(words, longest))
        for passage, words in zip(passages, found, strict=True)
    )


def _likely(model: Model, window: Window, tokens: list[int]) -> Generator[None, None, Floats]:
    """Tokens x steps."""
    steps = -(-window.further // STEP)
    found = np.zeros((len(tokens), steps), dtype=np.float32)
    for scores in model.net.looks(tokens, window.heard, model.heads):
        found += aligning.attended(np.array(scores[..., :steps]))
        yield None
    return found


def _longest(passages: list[list[Word]]) -> float:
    lengths = [word.end - word.start for words in passages for word in words]
    some = [length for length in lengths if length > 0]
    return _TOO_LONG * min(_LONG, float(np.median(some))) if some else _LONG


def _settled(words: Sequence[Word], longest: float) -> list[Word]:
    """A pause before a sentence counts for its first word: that begins as late as it may."""
    found: list[Word] = []
    for word in words:
        if not found or found[-1].text.endswith(_ENDS):
            word = replace(word, start=max(word.start, word.end - longest))
        found.append(word)
    return found


def _fitted(passage: Passage, words: list[Word]) -> Passage:
    """It begins and ends with its words; but what came before it is none of the first, and when
    the last ends much later it is the one that is wrong."""
    if not words:
        return passage
    if words[0].start < passage.start < words[0].end:
        words[0] = replace(words[0], start=passage.start)
    if words[-1].start < passage.end < words[-1].end - _NEAR:
        words[-1] = replace(words[-1], end=passage.end)
    return replace(passage, start=words[0].start, end=words[-1].end, words=tuple(words))
