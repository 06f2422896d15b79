"""Whether a model, its context and its requests fit into memory: said before anything is loaded,
since the system's out-of-memory killer says nothing.

An estimate, against measured loads: see tests/unit/server/test_fit.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from pippin_contract.serverconfig import PromptCacheConfig

from ...hardware.budget import Budget
from ..base import LoadFailed
from .args import Args
from .shape import Shape, read

log = structlog.get_logger("pippin.engine")

#: The program with its libraries, and what their allocators hold back.
PROGRAM = 256 * 2**20
#: Keys and values grow by copies, a layer at a time; those of several requests are also joined.
_GROWTH = 1.1
_JOINED = 1.5
#: Of the memory that the weights leave, what the prompt cache gets when nobody says; and at most.
_CACHE_SHARE = 8
_MOST_CACHE = 2 * 2**30
#: What is not asked for is not cut down below this.
_LEAST_CONTEXT = 2048
_QUANTISED = 4.5 / 8
#: A model that shares the memory gets more than its share for less context than that; in steps.
_USEFUL_CONTEXT = 8192
_STEPS = 8


@dataclass(frozen=True, slots=True)
class Wish:
    """What a server is told. `context` None: what the model has. `sequences`: requests at once.
    `strict`: what does not fit is refused, else only said; `stateless`: nothing is kept of what
    was read; `whole`: all of the model's positions are always taken, and read at once."""

    context: int | None
    sequences: int
    prompt_cache: PromptCacheConfig
    args: Args
    on_cpu: bool
    strict: bool = True
    stateless: bool = False
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Fit:
    """All in bytes but `context`, `sequences` and `fits`: how many requests fit with all of their
    context. `problem`: why it cannot be served so; `warning`: what will not go at once."""

    budget: Budget
    weights: int
    per_token: int
    context: int
    sequences: int
    fits: int
    cache: int
    needed: int
    problem: str | None = None
    warning: str | None = None

    def payload(self) -> dict[str, object]:
        """Of /status, and of the log."""
        return {
            "limit_bytes": self.budget.bytes,
            "weight_bytes": self.weights,
            "kv_bytes_per_token": self.per_token,
            "prompt_cache_bytes": self.cache,
            "context_length": self.context,
            "sequences": self.sequences,
            "sequences_that_fit": self.fits,
            "needed_bytes": self.needed,
        }


@dataclass(frozen=True, slots=True)
class Fitting:
    """What is wished, and what there is for it."""

    wish: Wish
    budget: Budget

    def of(self, path: Path, more: int = 0) -> Fit:
        """The model in that directory, and `more` bytes of weights beside its own."""
        shape = read(path, self.wish.args.dtype, on_cpu=self.wish.on_cpu)
        wish = self.wish
        if wish.stateless:
            shape = replace(shape, full=0, window=0)
        shape = replace(shape, weights=shape.weights + more)
        if wish.whole:
            args = replace(wish.args, prefill_step=shape.context)
            wish = replace(wish, context=shape.context, args=args)
        return estimate(shape, wish, self.budget)


def estimate(shape: Shape, wish: Wish, budget: Budget) -> Fit:
    """`budget` of 0: nobody knows, and everything fits."""
    if not budget.bytes:
        return _unknown(shape, wish)
    sums = _Sums(shape, wish, budget.bytes)
    context = wish.context or shape.context
    if wish.context is None and wish.strict and not wish.stateless:
        longest = sums.longest()
        if _LEAST_CONTEXT <= longest < context:
            context = longest
    cache = sums.cache(context)
    fits = sums.fitting(context, cache)
    needed = sums.needed(max(1, wish.sequences), context) + cache
    words = _Words(shape, wish, sums, budget)
    problem = words.problem(context, cache) if fits < 1 else None
    warning = problem or words.warning(context, fits)
    return Fit(
        budget, shape.weights, shape.per_token, context, wish.sequences, fits, cache, needed,
        problem if wish.strict else None, warning,
    )  # fmt: skip


def _unknown(shape: Shape, wish: Wish) -> Fit:
    cache = _MOST_CACHE if wish.prompt_cache.max_bytes is None else wish.prompt_cache.max_bytes
    return Fit(
        Budget(0, "nobody says"), shape.weights, shape.per_token, wish.context or shape.context,
        wish.sequences, wish.sequences, cache if wish.prompt_cache.enabled else 0, 0,
    )  # fmt: skip


def share(fitting: Fitting, path: Path, models: int) -> tuple[int, int]:
    """Of a memory in which so many models are to be: what this one takes of it, beside the program
    itself, and the limit that it is to keep.

    An equal share, when it fits into that with a useful context; else an eighth of all more, and so
    on. Raises LoadFailed when it does not fit into all of it.
    """
    whole = fitting.budget
    if not whole.bytes:
        return 0, 0
    alone = fitting.of(path)
    if alone.problem is not None:
        raise LoadFailed("InsufficientMemory", alone.problem)
    room = max(0, whole.bytes - PROGRAM)
    part = room / models
    while part < room:
        limit = PROGRAM + int(part)
        fit = replace(fitting, budget=Budget(limit, whole.of)).of(path)
        if fit.fits and fit.context >= min(alone.context, _USEFUL_CONTEXT):
            return min(fit.needed, limit) - PROGRAM, limit
        part += room / _STEPS
    return max(0, min(alone.needed, whole.bytes) - PROGRAM), whole.bytes


def settled(fit: Fit) -> Fit:
    """Said in the log. Raises LoadFailed."""
    if fit.problem is not None:
        raise LoadFailed("InsufficientMemory", fit.problem)
    log.info("memory.estimated", **fit.payload())
    if fit.warning is not None:
        log.warning("memory.tight", message=fit.warning)
    return fit


def usable(wanted: int | None, of_model: int) -> int:
    """Raises LoadFailed."""
    if (wanted or of_model) > of_model:
        raise LoadFailed(
            "ContextTooLong", f"contextLength {wanted} is more than the model's own {of_model}"
        )
    return wanted or of_model


class _Sums:
    def __init__(self, shape: Shape, wish: Wish, limit: int) -> None:
        self._shape, self._wish, self._limit = shape, wish, limit

    def needed(self, sequences: int, context: int) -> int:
        """Without a prompt cache."""
        reading = min(sequences, self._wish.args.prefill_batch)
        copies = _GROWTH if sequences == 1 else _JOINED
        state = int(sequences * self._shape.state(context) * copies)
        there = PROGRAM + self._shape.weights + self._shape.pictures
        return there + state + reading * self._reading(context)

    def _reading(self, context: int) -> int:
        """What is computed with while a piece of one prompt is read, or a picture painted."""
        shape, step = self._shape, min(self._wish.args.prefill_step, context)
        size = step * (4 * shape.hidden + 3 * shape.inner) * shape.width + shape.canvas
        # On a CPU every token's attention to every other is written down.
        return size + (step * shape.heads * context * shape.width if self._wish.on_cpu else 0)

    def cache(self, context: int) -> int:
        """What prefixes of prompts get: what is told, else what one whole request leaves."""
        told = self._wish.prompt_cache
        if not told.enabled:
            return 0
        if told.max_bytes is not None:
            return told.max_bytes
        share = (self._limit - self._shape.weights) // _CACHE_SHARE
        return max(0, min(_MOST_CACHE, share, self._limit - self.needed(1, context)))

    def fitting(self, context: int, cache: int) -> int:
        """How many requests with all of their context."""
        return _most(self._wish.sequences, lambda n: self.needed(n, context) + cache <= self._limit)

    def longest(self) -> int:
        """The context of one request."""
        told = self._wish.prompt_cache
        cache = (told.max_bytes or 0) if told.enabled else 0
        wanted = self._wish.context or self._shape.context
        most = _most(wanted, lambda n: self.needed(1, n) + cache <= self._limit)
        return most // 256 * 256 if 256 < most < wanted else most


def _most(wanted: int, good: Callable[[int], bool]) -> int:
    """The largest number up to `wanted` that is good; what is good for more is good for less."""
    low, high = 0, wanted
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if good(middle) else (low, middle - 1)
    return low


class _Words:
    """For the person who can change it."""

    def __init__(self, shape: Shape, wish: Wish, sums: _Sums, budget: Budget) -> None:
        self._shape, self._wish, self._sums, self._budget = shape, wish, sums, budget

    def problem(self, context: int, cache: int) -> str:
        shape = self._shape
        there = PROGRAM + shape.weights + shape.pictures
        one = self._sums.needed(1, context) - there
        parts = f"{size(shape.weights)} of weights, {size(PROGRAM)} of program"
        if one:
            parts += f", {size(one)} for one {shape.request(context)}"
        if shape.pictures:
            parts += f", {size(shape.pictures)} for pictures"
        if cache:
            parts += f", {size(cache)} of prompt cache"
        together = size(there + one + cache)
        limit = f"{self._budget.of} {size(self._budget.bytes)}"
        fixes = "; ".join(self._fixes(context, cache))
        return f"{parts}: {together} together, and {limit}. What helps: {fixes}"

    def _fixes(self, context: int, cache: int) -> Iterator[str]:
        longest = self._sums.longest()
        if 0 < longest < context and not self._wish.whole:
            yield f"contextLength {longest} or less"
        room = self._budget.bytes - self._sums.needed(1, context)
        if cache and room >= 0:
            yield f"promptCache.maxBytes {size(room)} or less"
        if not (self._shape.quantised or self._shape.side):
            stored = self._shape.weights / self._shape.width * _QUANTISED
            yield f"weights quantised to 4 bits (about {size(int(stored))})"
        need = self._sums.needed(1, context) + cache
        more = math.ceil(need / 2**30 * 10) / 10
        yield f"{more} GiB of memory (resources.limits.memory, accelerator.memory)"
        yield "PIPPIN_SERVER_MEMORY_CHECK=warn, to try it all the same"

    def warning(self, context: int, fits: int) -> str | None:
        said = []
        if context < self._shape.context and self._wish.context is None:
            of = f"{self._shape.context} of the model's"
            said.append(f"the context is cut to {context} tokens of the {of}, which do not fit")
        if fits < self._wish.sequences:
            said.append(
                f"up to {self._wish.sequences} requests run at once, and {fits} fit with {context} "
                f"tokens each: set limits.concurrency to {fits}, a smaller contextLength, or give "
                "more memory"
            )
        return "; ".join(said) or None


def size(count: int) -> str:
    """`1.5 GiB`, `12 MiB`."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{-(-count // 2**20)} MiB"
