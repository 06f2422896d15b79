"""Choosing the next token of every row at once, each row by its own parameters and its own seed.

A row draws its numbers from its own generator and inverts its distribution there. So a seed gives
the same tokens whatever else is in the batch, and no row leaves the batch for it.

Vocabularies are large, and on a CPU exponentials, sorting and `where` cost tens to hundreds of
times what a product does. So powers of two are bounded from above by reading numbers as bits, and
a token drawn by the bound is kept as often as its true share of the bound: that is exact, and needs
true exponentials of drawn tokens only. The cuts (top k, top p, min p) are one threshold, found by
halving.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence

import mlx.core as mx

from ..base import Sampling
from .adjust import Adjust
from .guide import Guide

#: Tokens drawn at once; the bound is at most 6 % too high, so three are enough for 1 in 5,000.
_TRIES = 3
#: Entries that are summed up before one is looked for among them.
_BLOCK = 64
#: A true share is at least so much of its bound: below it a token is kept, whichever it is.
_SURE = 0.942
#: A draw of exactly 1.0 in float32 would lie beyond the distribution's end; at 0 lies what may not
#: come, if it is the vocabulary's first.
_FIRST, _LAST = 2**-53, 1 - 2**-20
#: The bits of a float32 as a number: a step of the exponent, 1.0, and the least number there is.
_EXPONENT = 1 << 23
_ONE, _LEAST = 127.0 * _EXPONENT, 1.0 * _EXPONENT
#: The lowest exponent of a float32; and one below which all tokens together never come.
_LOWEST, _NEVER = -126.0, -40.0
#: So many numbers are compared one by one.
_FEW = 4096
#: Of the exponents from _NEVER to 0: tokens are told apart by a ten-thousandth of their share.
_HALVINGS = 18
_COLDEST = 1e-3


class Row:
    """One request's way of choosing, and the number of the adapter that it is answered by."""

    __slots__ = ("adapter", "adjust", "greedy", "random", "sampling", "top")

    def __init__(self, sampling: Sampling, guide: Guide | None = None, adapter: int = 0) -> None:
        self.adapter = adapter
        self.sampling = sampling
        self.adjust = Adjust.wanted(sampling, guide)
        self.top = sampling.logprobs
        self.greedy = sampling.temperature == 0 or sampling.top_k == 1
        # Seeded by the system when the request has no seed.
        self.random = random.Random(sampling.seed)

    def numbers(self) -> list[float]:
        """For one token: where to draw, and whether to keep it, for each try."""
        draw = self.random.random
        return [min(draw(), _LAST) or _FIRST for _ in range(2 * _TRIES)]


class RowSampler:
    """Turns logits (rows x vocabulary) into one token a row."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._columns = _Columns([])

    def __call__(self, logits: mx.array, rows: Sequence[Row]) -> mx.array:
        if all(row.greedy for row in rows):
            return mx.argmax(logits, axis=-1)
        if len(rows) != len(self._rows) or any(
            new is not old for new, old in zip(rows, self._rows, strict=True)
        ):
            self._rows, self._columns = list(rows), _Columns(rows)
        return self._columns.draw(logits, rows)


class _Columns:
    """The parameters of a batch, made once as long as the batch stays the same."""

    def __init__(self, rows: Sequence[Row]) -> None:
        wanted = [row.sampling for row in rows]
        self._mixed = any(row.greedy for row in rows)
        self._greedy = mx.array([row.greedy for row in rows])
        # 2 ** (logit * log2(e) / temperature) is exp(logit / temperature).
        exponent = float(_EXPONENT) * math.log2(math.e)
        self._scale = _column(exponent / max(s.temperature, _COLDEST) for s in wanted)
        self._min_p = self._top_k = self._top_p = None
        if any(s.min_p for s in wanted):
            self._min_p = _column(math.log2(s.min_p) if s.min_p else _LOWEST for s in wanted)
        if any(s.top_k for s in wanted):
            self._top_k = _column(s.top_k or math.inf for s in wanted)
        if any(s.top_p < 1 for s in wanted):
            self._top_p = _column(s.top_p for s in wanted)

    def draw(self, logits: mx.array, rows: Sequence[Row]) -> mx.array:
        bits = logits.astype(mx.float32) * self._scale
        bits = mx.maximum(bits + (_ONE - _highest(bits)), _LEAST)
        bound, exponents = _read(bits), _exponents(bits)  # the latter is computed if it is used
        least = self._least(exponents)
        if least is not None:
            bound = bound * (exponents >= least)
        numbers = [row.numbers() for row in rows]
        # On a CPU each step that is left out counts, however small what it works on.
        sure = all(told[_TRIES] < _SURE for told in numbers)
        draws = mx.array([told[: 1 if sure else _TRIES] for told in numbers])
        mass = mx.cumsum(bound, axis=-1)
        drawn = _places(mass, draws * mass[:, -1:])
        if not sure:
            found = mx.take_along_axis(bits, drawn, axis=-1)
            keeps = mx.array([told[_TRIES:] for told in numbers])
            kept = keeps * _read(found) < mx.power(2.0, _exponents(found))
            first = mx.argmax(kept, axis=-1, keepdims=True)
            drawn = mx.take_along_axis(drawn, first, axis=-1)
        drawn = drawn[:, 0]
        return mx.where(self._greedy, mx.argmax(logits, axis=-1), drawn) if self._mixed else drawn

    def _least(self, exponents: mx.array) -> mx.array | None:
        """The smallest exponent that may be drawn, of each row; None: all of them."""
        least = self._min_p
        if self._top_k is not None:
            count = _halved(lambda at: mx.sum(exponents >= at, axis=-1, keepdims=True), self._top_k)
            least = count if least is None else mx.maximum(least, count)
        if self._top_p is not None:
            powers = mx.power(2.0, exponents)
            if least is not None:
                powers = powers * (exponents >= least)
            needed = self._top_p * mx.sum(powers, axis=-1, keepdims=True)
            mass = _halved(
                lambda at: mx.sum(powers * (exponents >= at), axis=-1, keepdims=True),
                needed,
                reach=True,
            )
            least = mass if least is None else mx.maximum(least, mass)
        return least


def _places(mass: mx.array, targets: mx.array) -> mx.array:
    """How many entries of the row's sums, which rise, each of its targets has reached: first by
    blocks, then within the one block where it ends. The last sum is above all targets."""
    if over := mass.shape[-1] % _BLOCK:
        mass = mx.pad(mass, [(0, 0), (0, _BLOCK - over)], constant_values=math.inf)
    blocked = mass.reshape(len(mass), -1, _BLOCK)
    at = targets[..., None]
    block = mx.sum(blocked[:, None, :, -1] <= at, axis=-1)
    inside = mx.take_along_axis(blocked, block[..., None], axis=1)
    return block * _BLOCK + mx.sum(inside <= at, axis=-1)


def _highest(values: mx.array) -> mx.array:
    """The largest of each row. The library looks at one after the other on a CPU, but compares
    many at once; halves may overlap."""
    while (size := values.shape[-1]) > _FEW:
        half = (size + 1) // 2
        values = mx.maximum(values[:, :half], values[:, size - half :])
    return mx.max(values, axis=-1, keepdims=True)


def _read(bits: mx.array) -> mx.array:
    """2 ** x of the x whose bits these are, or up to 6 % more: a straight line between whole
    powers."""
    return bits.astype(mx.int32).view(mx.float32)


def _exponents(bits: mx.array) -> mx.array:
    return bits * (1 / _EXPONENT) - 127.0


def _halved(
    measure: Callable[[mx.array], mx.array], goal: mx.array, *, reach: bool = False
) -> mx.array:
    """The threshold above which the measure is just at most the goal (or, `reach`, at least).

    The measure falls as the threshold rises to 0, the likeliest token's exponent.
    """
    low, high = mx.full(goal.shape, _NEVER), mx.full(goal.shape, 1e-6)
    for _ in range(_HALVINGS):
        middle = (low + high) * 0.5
        found = measure(middle)
        above = found >= goal if reach else found > goal
        low, high = mx.where(above, middle, low), mx.where(above, high, middle)
    return mx.minimum(low if reach else high, 0.0)


def _column(values: Iterable[float]) -> mx.array:
    return mx.array(list(values), dtype=mx.float32)[:, None]
