"""How likely a prompt's own tokens are, for who wants it back with that (`echo` and `logprobs`).

Read a piece at a time between the steps of the others, since every token of a piece has a number
for each word of the vocabulary. What was read is not kept: the answer's prompt is read anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache

from ..base import Delta, Score
from .job import Job
from .lanes import Lanes
from .scores import Spelling, shares

#: Numbers that the scores of a piece have at most.
_PIECE = 16 * 2**20
_LEAST = 16


class Scoring:
    """Prompts that wait for their scores, one being read."""

    def __init__(self, model: Any, spelling: Spelling, lanes: Lanes, *, step: int) -> None:
        self._model = model
        self._spelling = spelling
        self._lanes = lanes
        self._step = step
        self._waiting: deque[tuple[int, Job]] = deque()
        self._cache: list[Any] = []
        self._scores: list[tuple[Score, ...]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, ticket: int, job: Job) -> None:
        self._waiting.append((ticket, job))

    @property
    def adapters(self) -> set[int]:
        """Of all that wait."""
        return {job.adapter for _, job in self._waiting}

    def remove(self, tickets: Container[int]) -> None:
        if self._waiting and self._waiting[0][0] in tickets:
            self._forget()
        self._waiting = deque(one for one in self._waiting if one[0] not in tickets)

    def clear(self) -> list[int]:
        """Whose scores nobody will tell now."""
        tickets = [ticket for ticket, _ in self._waiting]
        self._waiting.clear()
        self._forget()
        return tickets

    def _forget(self) -> None:
        self._cache, self._scores = [], []

    def step(self) -> tuple[int, Job, Delta] | None:
        """One piece of the first prompt; what there is to tell once all of it was read."""
        if not self._waiting:
            return None
        ticket, job = self._waiting[0]
        self._read(job)
        if len(self._scores) < len(job.tokens):
            return None
        self._waiting.popleft()
        told = Delta(
            job.echo or "",
            tokens=0,
            prompt_tokens=len(job.tokens),
            finish=None if job.max_tokens else "length",
            scores=tuple(self._scores),
        )
        self._forget()
        return ticket, job, told

    def _read(self, job: Job) -> None:
        if not self._scores:
            self._cache = make_prompt_cache(self._model)
            self._scores = [self._first(job)]
        begin = len(self._scores) - 1
        piece = job.tokens[begin : begin + self._size]
        after = job.tokens[begin + 1 : begin + 1 + len(piece)]
        if not after:
            return
        self._lanes.use([job.adapter])
        logits = self._model(mx.array(piece)[None], cache=self._cache)[0, : len(after)]
        self._width = logits.shape[-1]
        lines = shares(logits, mx.array(after), job.sampling.logprobs or 0)
        for line, token in zip(lines, after, strict=True):
            self._scores.append(line.read(token, job.sampling.logprobs or 0, self._spelling))

    _width = 2**17

    @property
    def _size(self) -> int:
        return max(_LEAST, min(self._step, _PIECE // self._width))

    def _first(self, job: Job) -> tuple[Score, ...]:
        """Nothing came before it, so nobody knows how likely it was."""
        score = self._spelling.score(job.tokens[0], None)
        if not (job.echo or "").startswith(score.text):
            score = Score("", b"", None)  # the tokenizer's own beginning, which is no text
        return (score,)
