"""From a recording to its passages, a step at a time: whoever steps may leave after each."""

from __future__ import annotations

import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np

from ...media import Hearing, Passage, Recording
from . import seeking
from .mel import HERTZ, Floats, log_mel
from .model import Model
from .net import Pair
from .rules import choose, logprobs
from .sound import Sound
from .timing import Window, timed

#: Added to the temperature while what comes out is no good: repetitions, or nothing to be sure of.
_WARMER = 0.2
_TOO_REPETITIVE, _TOO_UNSURE = 2.4, -1.0
#: Of silence, where nobody is sure of the words.
_SILENT = 0.6
#: What was said at a higher one is no example for what follows.
_WILD = 0.5
#: Samples that are too few for a word.
_REST = HERTZ // 10
_NEVER_THE_SAME = 0x5EED

#: Nothing new, or a window's passages, which may be none.
Step = tuple[Passage, ...] | None


@dataclass(slots=True)
class _Try:
    """What was made of a window at one temperature."""

    temperature: float
    tokens: list[int] = field(default_factory=list)
    total: float = 0.0
    no_speech: float = 0.0

    @property
    def sureness(self) -> float:
        return self.total / (len(self.tokens) + 1)

    @property
    def silent(self) -> bool:
        return self.no_speech > _SILENT and self.sureness < _TOO_UNSURE


class Listening:
    """One recording, written down. Iterated on the thread that owns the model."""

    def __init__(self, model: Model, recording: Recording, hearing: Hearing) -> None:
        self._model = model
        self._recording = recording
        self._hearing = hearing
        self._language = hearing.language or ("" if model.vocabulary.languages else "en")
        self._before = (
            model.vocabulary.words(f" {hearing.prompt.strip()}") if hearing.prompt else []
        )
        self._rules = model.rules
        self._random = np.random.default_rng(_NEVER_THE_SAME)

    def steps(self) -> Iterator[Step]:
        """Raises PromptRefused."""
        model, sound, at = self._model, Sound(self._recording), 0
        try:
            while len(samples := sound.window(at, model.window)) > (_REST if at else 0):
                heard = model.net.hear(mx.array(log_mel(samples, model.window, model.bands)))
                mx.eval(heard)
                yield None
                if not self._language:
                    self._language = self._detect(heard)
                best = yield from self._best(heard)
                passages, further = self._passages(best, at, len(samples))
                if self._hearing.words:
                    window = Window(heard, at, further)
                    passages = yield from timed(model, window, passages, self._language)
                yield passages
                at += further
        finally:
            sound.close()

    def _detect(self, heard: list[Pair]) -> str:
        """The likeliest language."""
        words, net = self._model.vocabulary, self._model.net
        logits = np.array(net.read([words.begin], net.memory(), heard)[0])
        return max(words.languages, key=lambda code: float(logits[words.languages[code]]))

    def _best(self, heard: list[Pair]) -> Generator[Step, None, _Try]:
        """Warmer and warmer until it is good."""
        temperature = self._hearing.temperature
        while True:
            made = yield from self._try(heard, temperature)
            temperature = round(temperature + _WARMER, 3)
            if made.silent or self._good(made) or temperature > 1:
                return made

    def _good(self, made: _Try) -> bool:
        raw = self._model.vocabulary.text(made.tokens).strip().encode()
        if len(raw) > _TOO_REPETITIVE * len(zlib.compress(raw)):
            return False
        return made.sureness >= _TOO_UNSURE

    def _try(self, heard: list[Pair], temperature: float) -> Generator[Step, None, _Try]:
        """Token by token."""
        words, net, half = self._model.vocabulary, self._model.net, self._model.limit // 2
        asking = words.asking(self._language)
        before = [words.before, *self._before[-(half - 1) :]] if self._before else []
        made, memory = _Try(temperature), net.memory()
        read = [*before, *asking]
        logits = np.array(net.read(read, memory, heard))
        if words.no_speech is not None:
            made.no_speech = float(np.exp(logprobs(logits[len(before)])[words.no_speech]))
        room = min(half, self._model.limit - len(read))
        while len(made.tokens) < room:
            token = self._chosen(logits[-1], made)
            if token == words.end:
                break
            made.tokens.append(token)
            yield None
            logits = np.array(net.read([token], memory, heard))
        return made

    def _chosen(self, logits: Floats, made: _Try) -> int:
        self._rules.apply(logits, made.tokens)
        token = choose(logits, made.temperature, self._random)
        made.total += float(logprobs(logits)[token])
        return token

    def _passages(self, made: _Try, at: int, length: int) -> tuple[tuple[Passage, ...], int]:
        """And by how many samples to go on."""
        if made.silent or not made.tokens:
            return (), length
        pieces, further = seeking.read(made.tokens, self._model.vocabulary.times, length)
        found = [passage for piece in pieces if (passage := self._passage(made, piece, at))]
        self._before += [token for one in found for token in one.tokens]
        if made.temperature > _WILD:
            self._before = []
        return tuple(found), further

    def _passage(self, made: _Try, piece: seeking.Piece, at: int) -> Passage | None:
        text = self._model.vocabulary.text(piece.tokens)
        if not text.strip() or piece.start == piece.end:
            return None
        return Passage(
            text=text,
            start=(at + piece.start) / HERTZ,
            end=min((at + piece.end) / HERTZ, self._recording.seconds),
            words=(),
            tokens=piece.tokens,
            language=self._language,
            avg_logprob=made.sureness,
            no_speech_prob=made.no_speech,
            temperature=made.temperature,
        )
