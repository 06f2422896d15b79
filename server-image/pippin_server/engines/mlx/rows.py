"""mlx_lm's continuous batch, with our sampling by rows and without what we never ask for.

Its classes are extended where they meet: the step (log-probabilities only of rows that ask, so
nothing of the vocabulary's size leaves the graph), the way in (a prompt's beginning comes from the
prompt cache), the ways on (what was read is kept there), whose adapter the model reads each row by,
and whether a prompt shows pictures. Read against mlx_lm 0.32; pyproject pins it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx_lm.generate import BatchGenerator, GenerationBatch, PromptProcessingBatch

from .adjust import adjusted
from .lanes import Lanes
from .promptcache import PromptCache
from .sampling import Row, RowSampler
from .scores import Line, scored
from .vision.vectors import Sight
from .waiting import Waiting


class RowGeneration(GenerationBatch):  # type: ignore[misc]
    """`samplers` holds a Row for each request; `fallback_sampler` is the one RowSampler."""

    uids: list[int]
    tokens: list[list[int]]
    samplers: list[Row]
    fallback_sampler: RowSampler
    _next_tokens: mx.array

    _next_logprobs: list[Line | None]
    #: Of the one batch that requests end in.
    cache: PromptCache

    #: Of the one too; an empty one is told it afterwards.
    lanes: Lanes

    def __init__(self, *arguments: Any, lanes: Lanes | None = None, **options: Any) -> None:
        if lanes is not None:
            self.lanes = lanes
        super().__init__(*arguments, **options)  # which takes the first step

    def _step(self) -> tuple[list[int], list[Line | None]]:
        self._current_tokens = inputs = self._next_tokens
        current = self._current_logprobs = self._next_logprobs
        self.lanes.use([row.adapter for row in self.samplers])
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
        """Asked as a request ends: its prompt and answer are kept."""
        adapter = self.samplers[idx].adapter
        self.cache.keep(self.tokens[idx], self.prompt_cache, idx, adapter)
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
    cache: PromptCache
    lanes: Lanes
    sight: Sight

    def _copy(self) -> RowPrompts:
        copied: RowPrompts = super()._copy()
        copied.cache, copied.lanes, copied.sight = self.cache, self.lanes, self.sight
        return copied

    def prompt(self, tokens: list[list[int]]) -> None:
        self.lanes.use([row.adapter for row in self.samplers])
        with self.sight.reading(tokens):
            super().prompt(tokens)

    def generate(self, tokens: list[list[int]]) -> RowGeneration:
        if any(len(rest) > 1 for rest in tokens):
            self.prompt([rest[:-1] for rest in tokens])
        # Not only at the end: others may ask the same while the answer is made.
        for row, read in enumerate(self.tokens):
            self.cache.keep(read, self.prompt_cache, row, self.samplers[row].adapter)
        generation = RowGeneration(
            self.model,
            self.uids,
            mx.array([rest[-1] for rest in tokens]),
            self.prompt_cache,
            # It would copy what was read for processors of logits, of which there are none, into
            # 32 bits, which numbers of pictures do not have.
            [[] for _ in self.uids],
            self.samplers,
            self.fallback_sampler,
            self.logits_processors,
            self.stop_sequences,
            self.max_tokens,
            lanes=self.lanes,
        )
        first = generation.tokens
        generation.tokens = [[*read, *new] for read, new in zip(self.tokens, first, strict=True)]
        self.uids, self.prompt_cache, self.tokens = [], [], []
        self.samplers, self.logits_processors, self.max_tokens = [], [], []
        self.stop_sequences = []
        return generation


@dataclass(frozen=True, slots=True)
class Parts:
    """Of the model: who must know what is about to be read."""

    lanes: Lanes
    sight: Sight


class RowGenerator(BatchGenerator):  # type: ignore[misc]
    """Its `insert` takes Rows as samplers."""

    _prompt_batch: RowPrompts
    _generation_batch: RowGeneration

    def __init__(
        self, model: Any, cache: PromptCache, parts: Parts, *, eos: list[int], **limits: int
    ) -> None:
        """`limits`: batch, prefill_batch, prefill_step."""
        sampler, step = RowSampler(), limits["prefill_step"]
        super().__init__(
            model,
            stop_tokens=[[token] for token in eos],
            sampler=sampler,
            completion_batch_size=limits["batch"],
            prefill_batch_size=min(limits["batch"], limits["prefill_batch"]),
            prefill_step_size=step,
        )
        self._prompt_batch = RowPrompts.empty(model, sampler, prefill_step_size=step)
        self._generation_batch = RowGeneration.empty(model, sampler)
        self._prompt_batch.lanes = self._generation_batch.lanes = parts.lanes
        self._prompt_batch.sight = parts.sight
        self._cache = self._prompt_batch.cache = self._generation_batch.cache = cache
        self._waiting = Waiting(cache.known)
        self._most = limits
        #: Of the requests whose prompts are being read: tokens that came from the cache.
        self.cached: dict[int, int] = {}

    @property
    def waiting(self) -> list[int]:
        """Of whom nothing was read yet."""
        return [sequence[0] for sequence in self._unprocessed_sequences]

    def narrow(self, batch: int) -> None:
        """At most so many at once, from the next that comes in; never more than at the start."""
        self.completion_batch_size = min(batch, self._most["batch"])
        self.prefill_batch_size = min(batch, self._most["batch"], self._most["prefill_batch"])

    def keep(self, uids: Iterable[int]) -> None:
        """What requests that are about to be removed have read and made."""
        with mx.stream(self._stream):
            for uid in uids:
                self._generation_batch.extract_cache(self._generation_batch.uids.index(uid))

    def remove(self, uids: list[int], return_prompt_caches: bool = False) -> Any:
        for uid in uids:
            self._waiting.left(uid)
            self.cached.pop(uid, None)
        return super().remove(uids, return_prompt_caches)

    def _make_batch(self, n: int) -> Any:
        """Of up to `n` that wait, with what the cache has of them; looked up only now, since who
        waits would hold copies, and would miss what is read meanwhile."""
        self._waiting.only(self._prompt_batch.uids)
        waiting = self._unprocessed_sequences
        now: list[tuple[Any, ...]] = []
        later: list[tuple[Any, ...]] = []
        for sequence in waiting:
            begun = self._begun(sequence) if len(now) < n else None
            (later if begun is None else now).append(begun or sequence)
        waiting.clear()
        waiting.extend(now + later)
        return super()._make_batch(len(now))

    def _begun(self, sequence: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """None: it waits for what another reads."""
        uid, segments, max_tokens, _, _, row, *rest = sequence
        tokens = [token for segment in segments for token in segment]
        if self._waiting.must_wait(uid, tokens, row.adapter):
            return None
        self._waiting.reads(uid, tokens, row.adapter)
        layers, found = self._cache.take(tokens, row.adapter)
        if not found:
            return sequence
        self.cached[uid] = found
        left = [part for part in (tokens[found:-1], tokens[-1:]) if part]
        return (uid, left, max_tokens, layers, tokens[:found], row, *rest)
