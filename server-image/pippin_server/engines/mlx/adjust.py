"""What requests do to the logits before tokens are chosen: biases, penalties, constraints.

Only rows that ask for any of it are touched. The tokens of the step before must be known for it,
so they are waited for while the model already works on the next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import mlx.core as mx
import numpy

from ..base import Sampling
from .guide import Guide

#: Far below any logit, and no infinity, with which sums turn into nothing.
_NEVER = -1e30


class Adjust:
    """One request's. Penalties count tokens of the answer, as OpenAI's do."""

    def __init__(self, sampling: Sampling, guide: Guide | None) -> None:
        self._bias = dict(sampling.logit_bias)
        self._frequency = sampling.frequency_penalty
        self._presence = sampling.presence_penalty
        self._guide = guide
        self._counts: Counter[int] = Counter()
        self._begun = False

    @classmethod
    def wanted(cls, sampling: Sampling, guide: Guide | None) -> Adjust | None:
        asks = sampling.logit_bias or sampling.frequency_penalty or sampling.presence_penalty
        return cls(sampling, guide) if asks or guide is not None else None

    def saw(self, token: int) -> None:
        """The token that the model reads now: first the prompt's last, then the answer's."""
        if not self._begun:
            self._begun = True
            return
        self._counts[token] += 1
        if self._guide is not None:
            self._guide.saw(token)

    def add_to(self, row: numpy.ndarray[tuple[int], numpy.dtype[numpy.float32]]) -> None:
        """To a row of zeros, one for each token."""
        for token, bias in self._bias.items():
            if token < row.size:
                row[token] += bias
        if self._frequency or self._presence:
            for token, count in self._counts.items():
                row[token] -= self._presence + self._frequency * count
        if self._guide is not None:
            allowed = self._guide.allowed()[: row.size]
            row[: allowed.size][~allowed] = _NEVER
            row[allowed.size :] = _NEVER


class Adjusting(Protocol):
    adjust: Adjust | None


def adjusted(logits: mx.array, rows: Sequence[Adjusting], inputs: mx.array) -> mx.array:
    """The logits (rows x vocabulary) with everything that their requests ask for."""
    touched = [(index, row.adjust) for index, row in enumerate(rows) if row.adjust is not None]
    if not touched:
        return logits
    mx.async_eval(logits)  # type: ignore[no-untyped-call]
    tokens: list[int] = inputs.tolist()  # type: ignore[assignment]
    added = numpy.zeros((len(touched), logits.shape[-1]), dtype=numpy.float32)
    for line, (index, adjust) in zip(added, touched, strict=True):
        adjust.saw(tokens[index])
        adjust.add_to(line)
    where = mx.array([index for index, _ in touched])
    return logits.astype(mx.float32).at[where].add(mx.array(added))
