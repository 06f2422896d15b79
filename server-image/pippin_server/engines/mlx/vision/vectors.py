"""The words' vectors of a language model, and those of pictures where prompts have these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from .gallery import FIRST, Gallery


class Sight:
    """Whether what a model is about to read has pictures in it. Lives on the owning thread."""

    def __init__(self) -> None:
        self.shown = False

    @contextmanager
    def reading(self, prompts: Sequence[Sequence[int]]) -> Iterator[None]:
        """Only prompts have pictures: what was made is not looked through, it is not known yet."""
        self.shown = any(max(tokens, default=0) >= FIRST for tokens in prompts)
        try:
            yield
        finally:
            self.shown = False


class Vectors(nn.Module):  # type: ignore[misc]
    """In the place of a model's `embed_tokens`."""

    def __init__(self, words: Any, gallery: Gallery, sight: Sight) -> None:
        super().__init__()
        self.words = words
        self._gallery = gallery
        self._sight = sight

    def __call__(self, tokens: mx.array) -> mx.array:
        if not self._sight.shown:
            said: mx.array = self.words(tokens)
            return said
        numbers = np.array(tokens)
        shown = numbers >= FIRST
        vectors: mx.array = self.words(mx.array(np.where(shown, 0, numbers)))
        if not shown.any():
            return vectors
        places = np.zeros(numbers.shape, dtype=np.int64)
        found, begin = [], 0
        for look in self._gallery.of(np.unique(numbers[shown]).tolist()):
            mine = (numbers >= look.start) & (numbers < look.numbers.stop)
            places[mine] = numbers[mine] - look.start + begin
            begin += look.plan.tokens
            found.append(look.vectors)
        seen = mx.concatenate(found)[mx.array(places)]
        return mx.where(mx.array(shown)[..., None], seen.astype(vectors.dtype), vectors)

    def as_linear(self, x: mx.array) -> mx.array:
        """Models that speak with the vectors that they read by."""
        logits: mx.array = self.words.as_linear(x)
        return logits
