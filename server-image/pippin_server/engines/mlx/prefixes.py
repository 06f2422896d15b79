"""Which prefixes of prompts are kept, under a cap of bytes. Knows nothing of MLX.

A prefix is a chain of blocks of as many tokens each, so that what two prompts begin with is kept
once. A block is found by the number of the one before it and its own tokens. What begins with
another `root` has nothing in common: chains begin at its negative, and numbers are positive.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

S = TypeVar("S")
#: Tokens of a block: what of a prefix does not fill one is computed again.
BLOCK = 32
_Key = tuple[int, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class _Block(Generic[S]):
    number: int
    state: S
    nbytes: int


class Prefixes(Generic[S]):
    """`S`: the state of one block, never changed once it is here. The least recently used goes."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.bytes = 0
        self.evicted = 0
        self._numbers = 0
        #: Oldest first. A chain is touched from its end, so the oldest is never needed by another.
        self._blocks: OrderedDict[_Key, _Block[S]] = OrderedDict()

    def find(self, tokens: Sequence[int], root: int = 0) -> list[S]:
        """The states of the longest prefix that is kept, block by block."""
        path = list(self._walk(tokens, root))
        self._touch(path)
        return [self._blocks[key].state for key in path]

    def known(self, tokens: Sequence[int], root: int = 0) -> int:
        """How many tokens `find` would find; leaves their age as it is."""
        return BLOCK * sum(1 for _ in self._walk(tokens, root))

    def keep(
        self,
        tokens: Sequence[int],
        nbytes: int,
        copy: Callable[[int, int], Sequence[S]],
        root: int = 0,
    ) -> None:
        """`copy` makes the states of the blocks from one token to another, `nbytes` each. Asked
        only for what is not here and has room; a chain that has not is kept as far as it goes."""
        path = list(self._walk(tokens, root))
        self._touch(path)
        room = self._make_room(len(tokens) // BLOCK - len(path), nbytes, spared=len(path))
        if not room:
            return
        begin = len(path)
        for state in copy(begin * BLOCK, (begin + room) * BLOCK):
            before = self._blocks[path[-1]].number if path else -root
            key = (before, tuple(tokens[len(path) * BLOCK : (len(path) + 1) * BLOCK]))
            self._numbers += 1
            self._blocks[key] = _Block(self._numbers, state, nbytes)
            self.bytes += nbytes
            path.append(key)
        self._touch(path)

    def clear(self) -> None:
        self._blocks.clear()
        self.bytes = 0

    def _walk(self, tokens: Sequence[int], root: int) -> Iterator[_Key]:
        before = -root
        for start in range(0, len(tokens) - BLOCK + 1, BLOCK):
            key = (before, tuple(tokens[start : start + BLOCK]))
            block = self._blocks.get(key)
            if block is None:
                return
            before = block.number
            yield key

    def _touch(self, path: Sequence[_Key]) -> None:
        for key in reversed(path):
            self._blocks.move_to_end(key)

    def _make_room(self, wanted: int, nbytes: int, *, spared: int) -> int:
        """How many of the wanted blocks fit, once older ones are gone; the youngest are spared."""
        while self.bytes + wanted * nbytes > self.capacity and len(self._blocks) > spared:
            _, block = self._blocks.popitem(last=False)
            self.bytes -= block.nbytes
            self.evicted += 1
        return max(0, min(wanted, (self.capacity - self.bytes) // nbytes))
