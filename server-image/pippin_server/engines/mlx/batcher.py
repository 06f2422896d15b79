"""One step of MLX for all requests: tokens out of the model, text out of the tokens, and a look at
pictures that prompts will show.

Lives on the owning thread. Detokenizes there, while the next step is being computed.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import structlog

from ..adapters import Described
from ..base import Delta, EngineFailed, Finish, OutOfMemory, Score
from ..stops import StopFilter
from ..worker import Event
from .degrade import Degrade
from .job import Job
from .lanes import Lanes
from .loading import in_use, translated
from .promptcache import PromptCache
from .rows import Parts, RowGenerator
from .sampling import Row
from .scores import Line, Spelling
from .scoring import Scoring
from .vision.gallery import Look
from .vision.seeing import Seeing
from .vision.vectors import Sight

log = structlog.get_logger("pippin.engine")


@dataclass(slots=True)
class _Running:
    ticket: int
    job: Job
    prompt_tokens: int
    cached_tokens: int
    detokenizer: Any
    stops: StopFilter
    #: Likeliest tokens to tell; None: no scores. Those of tokens whose text is held back wait.
    top: int | None
    held: list[tuple[Score, ...]] = field(default_factory=list)


class MlxBatcher:
    """The model, its batch, and the text of every request in it."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        cache: PromptCache,
        degrade: Degrade | None = None,
        seeing: Seeing | None = None,
        **limits: int,
    ) -> None:
        """`limits`: batch, prefill_batch, prefill_step; `seeing` None: it is shown no pictures."""
        self._degrade = degrade or Degrade(limits["batch"], time.monotonic)
        #: Bytes in use as memory ran out; None: it did not.
        self._held: int | None = None
        self._model = model
        self._lanes = Lanes(model)
        self._seeing = seeing
        self._parts = Parts(self._lanes, Sight() if seeing is None else seeing.sight)
        self._tokenizer = tokenizer
        self._limits = limits
        self._cache = cache
        self._eos = frozenset(tokenizer.eos_token_ids)
        self._spelling = Spelling(tokenizer)
        self._scoring = Scoring(model, self._spelling, self._lanes, step=limits["prefill_step"])
        self._running: dict[int, _Running] = {}
        self._uids: dict[int, int] = {}
        self._generator = self._fresh()

    def _fresh(self) -> RowGenerator:
        eos = sorted(self._eos)
        return RowGenerator(self._model, self._cache, self._parts, eos=eos, **self._limits)

    def adapt(self, told: Described) -> int:
        """The number of an adapter from now on. Raises LoadFailed."""
        return self._lanes.add(told)

    def forget(self, adapter: int) -> None:
        """It goes with the last request that is answered by it."""
        self._lanes.drop(adapter, self._adapters())

    def _adapters(self) -> set[int]:
        return {one.job.adapter for one in self._running.values()} | self._scoring.adapters

    @property
    def size(self) -> int:
        return len(self._running) + len(self._scoring) + len(self._seeing or ())

    def add(self, ticket: int, job: Job | Look) -> None:
        if isinstance(job, Look):
            assert self._seeing is not None
            self._seeing.add(ticket, job)
            return
        if job.adapter not in self._lanes:
            raise EngineFailed("the adapter has just been unloaded: see /v1/models")
        if job.echo is not None:
            self._scoring.add(ticket, job)
        else:
            self._insert(ticket, job)

    def _insert(self, ticket: int, job: Job) -> None:
        (uid,) = self._generator.insert(
            [job.tokens], [job.max_tokens], samplers=[Row(job.sampling, job.guide, job.adapter)]
        )
        self._uids[ticket] = uid
        self._running[uid] = _Running(
            ticket=ticket,
            job=job,
            prompt_tokens=len(job.tokens),
            cached_tokens=0,
            detokenizer=self._tokenizer.detokenizer,
            stops=StopFilter(job.sampling.stop),
            top=job.sampling.logprobs,
        )

    def remove(self, tickets: Iterable[int]) -> None:
        tickets = frozenset(tickets)
        self._scoring.remove(tickets)
        if self._seeing is not None:
            self._seeing.remove(tickets)
        uids = [self._uids.pop(ticket) for ticket in tickets if ticket in self._uids]
        if uids:
            self._generator.remove(uids)
        for uid in uids:
            del self._running[uid]

    def reset(self) -> list[int]:
        waiting = [self._running.pop(uid) for uid in self._generator.waiting]
        ended = [running.ticket for running in self._running.values()] + self._scoring.clear()
        if self._seeing is not None:
            ended += self._seeing.clear()
        if not ended:  # so that who cannot even begin is not tried for ever
            ended = [waiting.pop(0).ticket for _ in waiting[:1]]
        self._running.clear()
        self._uids.clear()
        self._generator.close()
        self._generator = self._fresh()
        gc.collect()  # what the failed step has built refers to itself
        mx.clear_cache()
        self._give_way()
        for running in waiting:
            self._insert(running.ticket, running.job)
        return ended

    def _give_way(self) -> None:
        """Less at once for a while, when it was memory."""
        if self._held is None:
            return
        freed, self._held = max(0, self._held - in_use()), None
        self._degrade.ran_out(freed)
        log.warning("memory.ran_out", freed_bytes=freed, batch=self._degrade.batch)

    def _adapt(self) -> None:
        self._lanes.tidy(self._adapters)
        self._generator.narrow(self._degrade.batch)
        if self._cache.paused != self._degrade.active:
            self._cache.paused = self._degrade.active
            log.warning("memory.degraded" if self._cache.paused else "memory.recovered")

    def step(self) -> list[tuple[int, Event]]:
        self._adapt()
        try:
            scored = self._scoring.step()
            responses = self._generator.next()[1] if self._running else ()
            seen = self._seeing.step() if self._seeing is not None else None
        except (RuntimeError, MemoryError) as error:
            failure = translated(error)
            if isinstance(failure, OutOfMemory):
                self._held = in_use()
                self._cache.drop("out of memory")
                if self._seeing is not None:
                    self._seeing.drop()
            raise failure from error
        events = self._made(responses)
        if seen is not None:
            events.append((seen, Delta("", tokens=0, finish="stop")))
        if scored is not None:
            ticket, job, delta = scored
            events.append((ticket, delta))
            if delta.finish is None:
                self._insert(ticket, job)
        return events

    def _made(self, responses: Iterable[Any]) -> list[tuple[int, Event]]:
        """Of the tokens that the generator made."""
        events: list[tuple[int, Event]] = []
        stopped: list[int] = []
        cached = self._generator.cached
        for response in responses:
            running = self._running[response.uid]
            running.cached_tokens = cached.pop(response.uid, running.cached_tokens)
            if response.logprobs is not None and response.token not in self._eos:
                line: Line = response.logprobs
                running.held.append(line.read(response.token, running.top or 0, self._spelling))
            delta = self._delta(running, response.token, response.finish_reason)
            events.append((running.ticket, delta))
            if delta.finish is None:
                continue
            if response.finish_reason is None:
                stopped.append(running.ticket)
            else:
                del self._running[response.uid]
                del self._uids[running.ticket]
        if stopped:
            self._generator.keep([self._uids[ticket] for ticket in stopped])
            self.remove(stopped)
        return events

    def _delta(self, running: _Running, token: int, finish: Finish | None) -> Delta:
        text = running.detokenizer
        if token not in self._eos:
            text.add_token(token)
        if finish is not None:
            text.finalize()
        shown, met = running.stops.feed(text.last_segment)
        if met:
            finish = "stop"
            running.held.clear()  # what a stop is made of is not told in scores either
        elif finish is not None:
            shown += running.stops.flush()
        scores: tuple[tuple[Score, ...], ...] = ()
        if running.held and (shown or finish is not None):
            scores = tuple(running.held)
            running.held.clear()
        return Delta(
            shown,
            prompt_tokens=running.prompt_tokens,
            cached_tokens=running.cached_tokens,
            finish=finish,
            scores=scores,
        )
