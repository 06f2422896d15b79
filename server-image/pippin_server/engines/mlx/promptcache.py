"""Keys and values of prompts and answers, kept for requests that begin alike, by the same adapter.

What is kept is a copy, and what a request gets is a copy: neither ever changes the other. Lives on
the owning thread; `state` may be asked from others. Why not mlx_lm's LRUPromptCache: a hit does not
make an entry younger there, prompts that begin alike are kept whole each, and its tree of
dictionaries, one for each token, is not in its count of bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import structlog
from mlx_lm.models.cache import KVCache, make_prompt_cache

from ..base import CacheState
from .loading import is_memory
from .prefixes import BLOCK, Prefixes

log = structlog.get_logger("pippin.engine")

_PAUSED = "memory ran out: it comes back by itself"


@dataclass(frozen=True, slots=True)
class _Kept:
    """Of one block of tokens, all layers: [layers, heads, tokens, size of a head]."""

    keys: mx.array
    values: mx.array


class PromptCache:
    """`capacity` in bytes. `off`: why nobody wants one."""

    def __init__(self, model: Any, capacity: int, off: str | None = None) -> None:
        self._prefixes = Prefixes[_Kept](capacity)
        self._hits = self._misses = self._drops = 0
        self._nbytes = 0
        #: Nothing is taken or kept for a while; what it holds was dropped.
        self.paused = False
        self._off = off or (_unsuited(model) if capacity > 0 else "there is no memory for it")
        if self._off is None:
            log.info("prompt_cache.on", capacity=capacity)
        else:
            log.warning("prompt_cache.off", reason=self._off)

    def take(self, tokens: Sequence[int], adapter: int = 0) -> tuple[list[KVCache], int]:
        """A copy of what is kept of the longest prefix, for each layer, and its tokens; the last
        token is always left to be computed. Nothing: `([], 0)`."""
        if self._off is not None or self.paused:
            return [], 0
        layers: list[KVCache] = []
        with self._guarded():
            layers = _assembled(self._prefixes.find(tokens[:-1], adapter))
        found = layers[0].offset if layers else 0
        self._hits += found
        self._misses += len(tokens) - found
        return layers, found

    def known(self, tokens: Sequence[int], adapter: int = 0) -> int:
        """How many of the tokens nobody needs to compute for others; all when it is off."""
        off = self._off is not None or self.paused
        return len(tokens) if off else self._prefixes.known(tokens, adapter)

    def keep(
        self, tokens: Sequence[int], layers: Sequence[Any], row: int, adapter: int = 0
    ) -> None:
        """Copy what is not here yet of one row of a batch that has read these tokens."""
        if self._off is not None or self.paused or len(tokens) < BLOCK:
            return
        with self._guarded():
            self._nbytes = self._nbytes or BLOCK * sum(map(_token_bytes, layers))
            self._prefixes.keep(
                tokens,
                self._nbytes,
                lambda start, end: _copied(layers, row, len(tokens), start, end),
                adapter,
            )

    def drop(self, why: str) -> None:
        """Give the memory back; what comes next is kept again."""
        if not self._prefixes.bytes:
            return
        log.warning("prompt_cache.dropped", reason=why, bytes=self._prefixes.bytes)
        self._drops += 1
        self._prefixes.clear()
        mx.clear_cache()

    @property
    def hits(self) -> int:
        """Tokens."""
        return self._hits

    @property
    def misses(self) -> int:
        """Tokens."""
        return self._misses

    def state(self) -> CacheState:
        return CacheState(
            reason=self._off or (_PAUSED if self.paused else None),
            bytes=self._prefixes.bytes,
            capacity=self._prefixes.capacity if self._off is None else 0,
            evicted=self._prefixes.evicted,
            drops=self._drops,
        )

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Nothing that goes wrong in here may cost a request its answer."""
        try:
            yield
        except Exception as error:
            if is_memory(error):
                self.drop("out of memory")
                return
            self._off = f"it failed ({type(error).__name__}): the log says how"
            log.exception("prompt_cache.failed", effect="prompts are computed whole from here on")
            self.drop("it failed")


def _unsuited(model: Any) -> str | None:
    """Why nothing can be cut out of this model's state; None: it can."""
    kinds = {type(layer) for layer in make_prompt_cache(model)} - {KVCache}
    if not kinds:
        return None
    names = ", ".join(sorted(kind.__name__ for kind in kinds))
    return f"this model's layers keep a state that cannot be cut at any token ({names})"


def _token_bytes(layer: Any) -> int:
    both: tuple[mx.array, mx.array] = (layer.keys, layer.values)
    return sum(array.shape[1] * array.shape[3] * array.itemsize for array in both)


def _copied(layers: Sequence[Any], row: int, length: int, start: int, end: int) -> list[_Kept]:
    padding = int(layers[0].left_padding[row].item())
    if layers[0].size() - padding != length:
        raise RuntimeError("the state of a row is not that of its tokens")
    here = slice(padding + start, padding + end)
    keys = _cut(mx.stack([layer.keys[row, :, here] for layer in layers]))
    values = _cut(mx.stack([layer.values[row, :, here] for layer in layers]))
    # Now, so that nothing of the batch is held, and what fails fails here.
    mx.eval(keys, values)
    return [_Kept(*pair) for pair in zip(keys, values, strict=True)]


def _cut(whole: mx.array) -> list[mx.array]:
    """Blocks with memory of their own."""
    starts = range(0, whole.shape[2], BLOCK)
    return [mx.contiguous(whole[:, :, start : start + BLOCK]) for start in starts]


def _assembled(blocks: Sequence[_Kept]) -> list[KVCache]:
    if not blocks:
        return []
    keys = mx.concatenate([block.keys for block in blocks], axis=2)
    values = mx.concatenate([block.values for block in blocks], axis=2)
    mx.eval(keys, values)
    layers = []
    for number in range(keys.shape[0]):
        layer = KVCache()
        # Views: mlx_lm copies them into the batch and changes only that.
        layer.state = (keys[number : number + 1], values[number : number + 1], keys.shape[2])
        layers.append(layer)
    return layers
