"""Whose prompt is read first when several begin alike and none of it is kept yet.

Read at once, they would all compute the same. So one reads, and the others wait until what they
share is in the prompt cache. Knows nothing of MLX.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

from .prefixes import BLOCK

#: Tokens for which it is worth to wait.
WORTH = 4 * BLOCK


class Waiting:
    """`known`: how many of these tokens are kept already, as read by this adapter."""

    def __init__(self, known: Callable[[Sequence[int], int], int]) -> None:
        self._known = known
        self._reading: dict[int, tuple[int, Sequence[int]]] = {}
        #: Who waits, and for whom.
        self._waiting: dict[int, int] = {}

    def only(self, reading: Container[int]) -> None:
        """Of all that began to read, these still do."""
        self._reading = {uid: read for uid, read in self._reading.items() if uid in reading}

    def must_wait(self, uid: int, tokens: Sequence[int], adapter: int = 0) -> bool:
        """Once, for one: what it waited for may not have been kept."""
        if uid in self._waiting:
            return self._waiting[uid] in self._reading
        if not self._reading:
            return False
        known = self._known(tokens, adapter)
        for reader, (by, others) in self._reading.items():
            shared = _shared(tokens, others) - known if by == adapter else 0
            # Nor behind a prompt that goes on for longer than what it saves.
            if shared >= WORTH and 2 * shared >= len(others) - known:
                self._waiting[uid] = reader
                return True
        return False

    def reads(self, uid: int, tokens: Sequence[int], adapter: int = 0) -> None:
        self._waiting.pop(uid, None)
        self._reading[uid] = adapter, tokens

    def left(self, uid: int) -> None:
        """Before its end."""
        self._waiting.pop(uid, None)
        self._reading.pop(uid, None)


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Tokens of the whole blocks that both begin with."""
    for start in range(0, min(len(one), len(other)) // BLOCK * BLOCK, BLOCK):
        if one[start : start + BLOCK] != other[start : start + BLOCK]:
            return start
    return min(len(one), len(other)) // BLOCK * BLOCK
