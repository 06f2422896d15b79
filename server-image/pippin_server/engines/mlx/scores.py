"""How likely chosen tokens were, for the rows that ask: by the model alone, before anything that
requests do to the logits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

import mlx.core as mx

from ..base import Score


class Asking(Protocol):
    #: Likeliest tokens to tell beside the chosen one; None: nothing is asked for.
    top: int | None


class Line:
    """One row of a step; read once its token is known to be part of the answer."""

    __slots__ = ("_number", "_step")

    def __init__(self, step: _Step, number: int) -> None:
        self._step = step
        self._number = number

    def read(self, token: int, top: int, spelling: Spelling) -> tuple[Score, ...]:
        """The chosen token first, then the `top` likeliest, whether it is among them or not."""
        chosen, ids, values = self._step.read()
        scores = [spelling.score(token, chosen[self._number])]
        if top:
            pairs = zip(ids[self._number], values[self._number], strict=True)
            best = sorted(pairs, key=lambda pair: -pair[1])[:top]
            scores += [spelling.score(*pair) for pair in best]
        return tuple(scores)


class _Step:
    """Arrays that are computed with the next tokens, and fetched when the first row is read."""

    def __init__(self, logits: mx.array, chosen: mx.array, most: int) -> None:
        shares = logits.astype(mx.float32)
        shares = shares - mx.logsumexp(shares, axis=-1, keepdims=True)
        self.arrays = [mx.take_along_axis(shares, chosen[:, None], axis=-1)[:, 0]]
        if most:
            ids = mx.argpartition(-shares, kth=most - 1, axis=-1)[:, :most]
            self.arrays += [ids, mx.take_along_axis(shares, ids, axis=-1)]
        self._read: tuple[list[float], list[list[int]], list[list[float]]] | None = None

    def read(self) -> tuple[list[float], list[list[int]], list[list[float]]]:
        if self._read is None:
            found: list[Any] = [array.tolist() for array in self.arrays]
            self._read = (found[0], *(found[1:] or ([], [])))
        return self._read


def scored(
    logits: mx.array, chosen: mx.array, rows: Sequence[Asking]
) -> tuple[list[Line | None], list[mx.array]]:
    """A Line for each row that asks, and what must be computed for them."""
    lines: list[Line | None] = [None] * len(rows)
    asking = [index for index, row in enumerate(rows) if row.top is not None]
    if not asking:
        return lines, []
    where = mx.array(asking)
    step = _Step(logits[where], chosen[where], max(rows[index].top or 0 for index in asking))
    for number, index in enumerate(asking):
        lines[index] = Line(step, number)
    return lines, step.arrays


def shares(logits: mx.array, chosen: mx.array, top: int) -> list[Line]:
    """A Line for every row, all of which ask for as many."""
    step = _Step(logits, chosen, top)
    return [Line(step, number) for number in range(logits.shape[0])]


class Spelling:
    """Text and bytes of single tokens, which may be less than a character."""

    def __init__(self, tokenizer: Any) -> None:
        fast = getattr(tokenizer, "_tokenizer", tokenizer)
        self._decode = fast.decode
        self._piece = fast.convert_ids_to_tokens
        self._special = frozenset(fast.all_special_ids)
        backend = getattr(fast, "backend_tokenizer", None)
        self._by_bytes = "ByteLevel" in repr(getattr(backend, "decoder", ""))
        self._spelt = lru_cache(8192)(self._spell)

    def score(self, token: int, logprob: float | None) -> Score:
        text, raw = self._spelt(token)
        return Score(text, raw, logprob)

    def _spell(self, token: int) -> tuple[str, bytes]:
        text: str = self._decode([token])
        if self._by_bytes and token not in self._special:
            piece: str = self._piece(token) or ""
            if all(character in _BYTES for character in piece):
                return text, bytes(_BYTES[character] for character in piece)
        return text, text.encode()


def _byte_table() -> dict[str, int]:
    """The characters that byte-level tokenizers write bytes with, as GPT-2 began it."""
    plain = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {
        chr(256 + number): byte for number, byte in enumerate(others)
    }


_BYTES = _byte_table()
