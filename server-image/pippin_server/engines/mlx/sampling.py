"""Choosing the next token of every row at once, each row by its own parameters and its own seed.

A row draws one uniform number a token from its own generator and inverts the distribution there.
So a seed gives the same tokens whatever else is in the batch, and no row leaves the batch for it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import mlx.core as mx

from ..base import Sampling

#: A draw of exactly 1.0 in float32 would lie beyond the distribution's end.
_LAST = 1 - 2**-20


class Row:
    """One request's way of choosing."""

    __slots__ = ("greedy", "random", "sampling")

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self.greedy = sampling.temperature == 0 or sampling.top_k == 1
        # Seeded by the system when the request has no seed.
        self.random = random.Random(sampling.seed)


class RowSampler:
    """Turns logits (rows x vocabulary) into one token a row."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._filters = _Filters([])

    def __call__(self, logits: mx.array, rows: Sequence[Row]) -> mx.array:
        if all(row.greedy for row in rows):
            return mx.argmax(logits, axis=-1)
        if len(rows) != len(self._rows) or any(
            new is not old for new, old in zip(rows, self._rows, strict=True)
        ):
            self._rows, self._filters = list(rows), _Filters(rows)
        return self._filters.draw(logits, rows)


class _Filters:
    """The parameters of a batch as columns, made once as long as the batch stays the same."""

    def __init__(self, rows: Sequence[Row]) -> None:
        wanted = [row.sampling for row in rows]
        self._mixed = any(row.greedy for row in rows)
        self._greedy = mx.array([row.greedy for row in rows])
        self._inverse_temperature = _column(1 / max(s.temperature, 1e-3) for s in wanted)
        self._top_k = _column(s.top_k for s in wanted) if any(s.top_k for s in wanted) else None
        self._top_p = _column(s.top_p for s in wanted) if any(s.top_p < 1 for s in wanted) else None
        self._min_p = _column(s.min_p for s in wanted) if any(s.min_p for s in wanted) else None

    def draw(self, logits: mx.array, rows: Sequence[Row]) -> mx.array:
        scaled = logits.astype(mx.float32) * self._inverse_temperature
        probabilities = mx.exp(scaled - mx.max(scaled, axis=-1, keepdims=True))
        if self._min_p is not None:  # the likeliest has 1 here
            probabilities = mx.where(probabilities < self._min_p, 0, probabilities)
        if self._top_k is not None or self._top_p is not None:
            probabilities = self._cut(probabilities)
        mass = mx.cumsum(probabilities, axis=-1)
        draws = _column(min(row.random.random(), _LAST) for row in rows)
        drawn = mx.argmax(mass > draws * mass[:, -1:], axis=-1)
        return mx.where(self._greedy, mx.argmax(logits, axis=-1), drawn) if self._mixed else drawn

    def _cut(self, probabilities: mx.array) -> mx.array:
        """Keep the top k, then the fewest of them that hold top p of the mass."""
        ordered = -mx.sort(-probabilities, axis=-1)
        vocabulary = ordered.shape[-1]
        if self._top_k is not None:
            ranks = mx.arange(vocabulary)[None, :]
            kept = (self._top_k == 0) | (ranks < self._top_k)
            ordered = mx.where(kept, ordered, 0)
        last = mx.sum(ordered > 0, axis=-1, keepdims=True) - 1
        if self._top_p is not None:
            before = mx.cumsum(ordered, axis=-1, inclusive=False)
            whole = mx.sum(ordered, axis=-1, keepdims=True)
            needed = mx.sum((before < self._top_p * whole) & (ordered > 0), axis=-1, keepdims=True)
            last = mx.maximum(needed - 1, 0)
        least = mx.take_along_axis(ordered, last, axis=-1)
        return mx.where(probabilities < least, 0, probabilities)


def _column(values: object) -> mx.array:
    return mx.array(list(values), dtype=mx.float32)[:, None]  # type: ignore[call-overload]
