"""mlx_lm's continuous batch, with our sampling by rows and without what we never ask for.

Three of its classes are extended where they meet: the step (log-probabilities only of rows that
ask, so nothing of the vocabulary's size leaves the graph), the caches of ended requests (not kept)
and the way from prompt to generation. Read against mlx_lm 0.32; pyproject pins it.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from mlx_lm.generate import BatchGenerator, GenerationBatch, PromptProcessingBatch

from .adjust import adjusted
from .sampling import Row, RowSampler
from .scores import Line, scored


class RowGeneration(GenerationBatch):  # type: ignore[misc]
    """`samplers` holds a Row for each request; `fallback_sampler` is the one RowSampler."""

    uids: list[int]
    tokens: list[list[int]]
    samplers: list[Row]
    fallback_sampler: RowSampler
    _next_tokens: mx.array

    _next_logprobs: list[Line | None]

    def _step(self) -> tuple[list[int], list[Line | None]]:
        self._current_tokens = inputs = self._next_tokens
        current = self._current_logprobs = self._next_logprobs
        raw = self.model(inputs[:, None], cache=self.prompt_cache)[:, -1, :]
        logits = adjusted(raw, self.samplers, inputs)
        self._next_tokens = self.fallback_sampler(logits, self.samplers)
        self._next_logprobs, arrays = scored(raw, self._next_tokens, self.samplers)
        # The next tokens are computed while these are waited for and worked on.
        mx.async_eval(self._next_tokens, *arrays)  # type: ignore[no-untyped-call]
        tokens: list[int] = inputs.tolist()  # type: ignore[assignment]
        for seen, token in zip(self.tokens, tokens, strict=True):
            seen.append(token)
        return tokens, current

    def extract_cache(self, idx: int) -> list[Any]:
        return []


class RowPrompts(PromptProcessingBatch):  # type: ignore[misc]
    """Hands over to RowGeneration."""

    uids: list[int]
    tokens: list[list[int]]
    samplers: list[Row]
    prompt_cache: list[Any]
    logits_processors: list[Any]
    stop_sequences: list[Any]
    max_tokens: list[int]

    def generate(self, tokens: list[list[int]]) -> RowGeneration:
        if any(len(rest) > 1 for rest in tokens):
            self.prompt([rest[:-1] for rest in tokens])
        generation = RowGeneration(
            self.model,
            self.uids,
            mx.array([rest[-1] for rest in tokens]),
            self.prompt_cache,
            self.tokens,
            self.samplers,
            self.fallback_sampler,
            self.logits_processors,
            self.stop_sequences,
            self.max_tokens,
        )
        self.uids, self.prompt_cache, self.tokens = [], [], []
        self.samplers, self.logits_processors, self.max_tokens = [], [], []
        self.stop_sequences = []
        return generation


def row_generator(
    model: Any, *, eos: list[int], batch: int, prefill_batch: int, prefill_step: int
) -> BatchGenerator:
    """A BatchGenerator whose `insert` takes Rows as samplers."""
    sampler = RowSampler()
    generator = BatchGenerator(
        model,
        stop_tokens=[[token] for token in eos],
        sampler=sampler,
        completion_batch_size=batch,
        prefill_batch_size=min(batch, prefill_batch),
        prefill_step_size=prefill_step,
    )
    generator._prompt_batch = RowPrompts.empty(model, sampler, prefill_step_size=prefill_step)
    generator._generation_batch = RowGeneration.empty(model, sampler)
    return generator
