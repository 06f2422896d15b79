"""The pictures that requests hold or showed lately, by numbers that stand for their tokens.

The language model's batch, its prompt cache and all else that knows prompts by their tokens go on
as they are: a picture's tokens have numbers that no vocabulary has, the same for the same picture,
and never another's. So prompts that show the same begin alike, and those that do not, do not.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from weakref import WeakValueDictionary

from ...base import Shown
from .eyes import Plan

#: Larger than any vocabulary. Numbers of 64 bits are never used up.
FIRST = 2**32
#: Pictures whose numbers are remembered: what the prompt cache has of them is found by these.
_MOST = 50_000

_Key = tuple[bytes, bool]


@dataclass(slots=True, eq=False, weakref_slot=True)
class Look:
    """One picture, cut up as `plan` says. `vectors`: what the model reads in place of its tokens,
    once it was looked at; `tiles`: only until then."""

    key: _Key
    start: int
    plan: Plan
    tiles: list[Any] | None = None
    vectors: Any = None

    @property
    def numbers(self) -> range:
        return range(self.start, self.start + self.plan.tokens)


class Gallery:
    """Asked by several threads. What nobody holds is forgotten, but for the youngest of it, of so
    many bytes of vectors."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._held: WeakValueDictionary[_Key, Look] = WeakValueDictionary()
        self._kept: OrderedDict[_Key, Look] = OrderedDict()
        self._bytes = 0
        self._starts: OrderedDict[_Key, int] = OrderedDict()
        self._next = FIRST

    def look(self, shown: Shown, plan: Plan) -> Look:
        """The one of this picture; the same for all who show it at the same time."""
        key = sha256(shown.content).digest(), shown.coarse
        with self._lock:
            found = self._held.get(key)
            if found is None:
                found = self._held[key] = Look(key, self._start(key, plan), plan)
            elif key in self._kept:
                self._kept.move_to_end(key)
            return found

    def keep(self, look: Look) -> None:
        """It has its vectors now."""
        with self._lock:
            if look.key in self._kept or look.vectors.nbytes > self._capacity:
                return
            self._kept[look.key] = look
            self._bytes += look.vectors.nbytes
            while self._bytes > self._capacity:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= oldest.vectors.nbytes

    def clear(self) -> None:
        """Give memory back; who holds a look still has it."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0

    def of(self, numbers: Sequence[int]) -> list[Look]:
        """Those that these numbers belong to. Raises LookupError for one that nobody holds."""
        with self._lock:
            looks = sorted(self._held.values(), key=lambda look: look.start)
        starts, found = [look.start for look in looks], {}
        for number in numbers:
            at = bisect_right(starts, number) - 1
            if at < 0 or number not in looks[at].numbers:
                raise LookupError("a picture that nobody holds any more")
            found[at] = looks[at]
        return list(found.values())

    def _start(self, key: _Key, plan: Plan) -> int:
        start = self._starts.pop(key, None)
        if start is None:
            start, self._next = self._next, self._next + plan.tokens
        self._starts[key] = start
        if len(self._starts) > _MOST:
            self._starts.popitem(last=False)
        return start
