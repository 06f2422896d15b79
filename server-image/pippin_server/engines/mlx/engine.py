"""The MLX engine: one thread owns the model, one more turns prompts into tokens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from .. import weights
from ..adapters import Adaptable, about, describe
from ..base import (
    Activity,
    Delta,
    EngineFailed,
    EngineStopped,
    Loaded,
    LoadFailed,
    Progress,
    Prompt,
    PromptTooLong,
    Sampling,
)
from ..worker import Worker
from . import vision
from .degrade import Degrade
from .fit import Fitting, settled, usable
from .job import Job

if TYPE_CHECKING:
    # MLX takes seconds to import: done on the engine's thread, so that HTTP is up meanwhile.
    from .batcher import MlxBatcher
    from .model import Tokens
    from .promptcache import PromptCache
    from .reading import Reader
    from .vision.gallery import Look
    from .vision.showing import Showing

R = TypeVar("R")
_WARM_UP = Prompt(text="Hello, how are you today?")


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the event loop needs of the model that the thread owns."""

    batcher: MlxBatcher
    tokens: Tokens
    showing: Showing | None
    cache: PromptCache
    degrade: Degrade
    context_length: int
    bytes: int
    details: dict[str, str]


class MlxEngine(Adaptable):
    """See the package."""

    name = "mlx"
    #: One that is loaded says more, when its model sees.
    honours = frozenset(
        ("logit_bias", "frequency_penalty", "presence_penalty", "response_format", "logprobs")
        + ("top_logprobs", "tools", "tool_choice", "parallel_tool_calls", "echo")
    )

    def __init__(self, fitting: Fitting, *, clock: Callable[[], float]) -> None:
        self._args = fitting.wish.args
        self._fitting = fitting
        self._batch = fitting.wish.sequences
        self._cache: PromptCache | None = None
        self._degrade: Degrade | None = None
        self._clock = clock
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix="pippin-tokens")
        self._worker: Worker[Job | Look, Delta] | None = None
        self._tokens: Tokens | None = None
        self._showing: Showing | None = None
        self._batcher: MlxBatcher | None = None
        self.adapters: Mapping[str, Path] = {}
        #: By their names; never the same twice.
        self._numbers: dict[str, int] = {}
        self._context = 0

    async def load(self, path: Path | None, progress: Progress) -> Loaded:
        if path is None:
            raise LoadFailed("ModelSourceNotFound", "no weights were given")
        more = await asyncio.to_thread(_bytes, self.adapters)
        fit = settled(await asyncio.to_thread(self._fitting.of, path, more))
        progress(0, "loading weights")
        worker: Worker[Job | Look, Delta] = Worker("pippin-engine", self._clock)
        self._worker = worker
        loop = asyncio.get_running_loop()
        loaded: asyncio.Future[_Facts] = loop.create_future()

        def make() -> MlxBatcher:
            from .batcher import MlxBatcher
            from .model import Tokens, load
            from .promptcache import PromptCache

            model = load(path, self._args)
            wanted = self._fitting.wish.prompt_cache.enabled
            off = None if wanted else "promptCache.enabled is false"
            cache = PromptCache(model.weights, fit.cache, off)
            degrade = Degrade(self._batch, self._clock)
            showing = seeing = None
            if model.eyes is not None:
                from .vision.gallery import Gallery
                from .vision.seeing import Seeing
                from .vision.showing import Showing

                gallery = Gallery(vision.KEPT)
                showing = Showing(model.eyes, gallery, worker)
                seeing = Seeing(model.weights, model.eyes, gallery, self._clock)
            batcher = MlxBatcher(
                model.weights,
                model.tokenizer,
                cache,
                degrade,
                seeing,
                batch=self._batch,
                prefill_batch=self._args.prefill_batch,
                prefill_step=self._args.prefill_step,
            )
            for name, directory in self.adapters.items():
                self._numbers[name] = _adapted(batcher, name, directory)
            facts = _Facts(
                *(batcher, Tokens(model), showing, cache, degrade),
                *(model.context_length, model.bytes, model.details),
            )
            loop.call_soon_threadsafe(loaded.set_result, facts)
            return batcher

        await worker.start(make)
        facts = await loaded
        self._tokens, self._cache, self._degrade = facts.tokens, facts.cache, facts.degrade
        self._batcher, self._showing = facts.batcher, facts.showing
        if self._showing is not None:
            self.honours = self.honours | {"image_url"}
        self._context = min(fit.context, usable(self._fitting.wish.context, facts.context_length))
        progress(100, "loaded")
        sees = self._showing is not None
        return Loaded(self._context, facts.bytes, facts.details, fit.payload(), sees)

    async def adapt(self, name: str, path: Path) -> None:
        worker, batcher = self._worker, self._batcher
        if worker is None or batcher is None:
            raise EngineStopped("the model is not loaded")
        self._numbers[name] = await worker.between_steps(lambda: _adapted(batcher, name, path))

    async def forget(self, name: str) -> None:
        worker, batcher, number = self._worker, self._batcher, self._numbers.pop(name)
        if worker is not None and batcher is not None:
            await worker.between_steps(lambda: batcher.forget(number))

    async def warm_up(self) -> None:
        # As many as make the widest prompt batch, so that its kernels are known too.
        async def one() -> None:
            async for _ in self.generate(_WARM_UP, Sampling(max_tokens=4, temperature=0)):
                pass

        await asyncio.gather(*(one() for _ in range(min(self._batch, 2))))

    async def generate(
        self, prompt: Prompt, sampling: Sampling
    ) -> AsyncGenerator[Sequence[Delta], None]:
        if self._worker is None or self._tokens is None:
            raise EngineStopped("the model is not loaded")
        self._tokens.check_pictures(prompt)
        looks = self._showing.looks(prompt) if self._showing is not None else ()
        tokens = await self._aside(self._tokens.encode, prompt, looks)
        job, reader = await self._job(prompt, sampling, tokens)
        if self._showing is not None:  # once it is known that all of it fits
            await self._showing.seen(prompt, looks)
            job = replace(job, looks=looks)
        before: list[Delta] = []
        if sampling.echo and job.echo is None:  # else it comes with its scores
            text = await self._aside(self._tokens.text, prompt, tokens)
            before = [Delta(text, tokens=0, prompt_tokens=len(tokens))]
            if not job.max_tokens:
                yield [replace(before[0], finish="length")]
                return
        async with aclosing(self._worker.run(job)) as answer:
            async for deltas in answer:
                read = deltas if reader is None else reader.read(deltas)
                yield [*before, *read] if before else read
                before = []
                if read[-1].finish is not None:  # also after the only call that may be made
                    return

    async def _job(
        self, prompt: Prompt, sampling: Sampling, tokens: list[int]
    ) -> tuple[Job, Reader | None]:
        """Checked, and who makes more than words of what comes. Raises EngineError."""
        assert self._tokens is not None
        room = self._context - len(tokens)
        wanted = 1 if sampling.max_tokens is None else sampling.max_tokens
        if room < wanted:
            raise PromptTooLong(
                prompt_tokens=len(tokens), wanted=sampling.max_tokens, limit=self._context
            )
        self._tokens.check_bias(sampling.logit_bias)
        guide = None
        if sampling.schema is not None or prompt.tools is not None:
            guide = await self._aside(self._tokens.guide, prompt, sampling, tokens)
        reader = self._tokens.reader(prompt, sampling, tokens, guide)
        if reader is not None:
            sampling = replace(sampling, stop=())  # it looks for them where words are
        echo = None
        if sampling.echo and sampling.logprobs is not None:
            echo = await self._aside(self._tokens.text, prompt, tokens)
        most = room if sampling.max_tokens is None else sampling.max_tokens
        return Job(tokens, most, sampling, guide, echo, self._number(prompt.adapter)), reader

    def _number(self, adapter: str) -> int:
        """Raises EngineFailed."""
        number = self._numbers.get(adapter) if adapter else 0
        if number is None:
            raise EngineFailed("the adapter has just been unloaded: see /v1/models")
        return number

    async def _aside(self, call: Callable[..., R], *arguments: object) -> R:
        """On the thread that knows the tokenizer."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._tokenizing, call, *arguments)

    def activity(self) -> Activity:
        worker, cache = self._worker, self._cache
        if worker is None:
            return Activity(active=0, batch=0, progressed_at=self._clock())
        return replace(
            worker.activity(),
            cache_hits=cache.hits if cache else 0,
            cache_misses=cache.misses if cache else 0,
            cache=cache.state() if cache else None,
            strain=self._degrade.state() if self._degrade else None,
        )

    async def close(self) -> None:
        if self._worker is not None:
            await self._worker.close()
        if self._showing is not None:
            self._showing.close()
        # The model is gone with its thread; these are what else holds on to parts of it.
        self._tokens = self._cache = self._batcher = self._showing = None
        self._tokenizing.shutdown(wait=False, cancel_futures=True)


def _adapted(batcher: MlxBatcher, name: str, directory: Path) -> int:
    """On the engine's thread. Raises LoadFailed."""
    with about(name):
        return batcher.adapt(describe(directory))


def _bytes(adapters: Mapping[str, Path]) -> int:
    """What they take, at most. Raises LoadFailed."""
    total = 0
    for name, directory in adapters.items():
        with about(name):
            total += 4 * sum(one.numbers for one in weights.within(describe(directory).weights))
    return total
