"""Pictures wait for their turn to be looked at, between the steps of the others."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container
from typing import Any

import mlx.core as mx

from .eyes import Eyes, Steps
from .gallery import Gallery, Look
from .vectors import Sight, Vectors

#: Seconds for which others wait, or one step of a picture.
_TURN = 0.05


class Seeing:
    """Those that wait, the first of them being looked at."""

    def __init__(
        self, model: Any, eyes: Eyes, gallery: Gallery, clock: Callable[[], float]
    ) -> None:
        """Opens the model's eyes: from now on it reads what the gallery has numbers for."""
        self.sight = Sight()
        reader = eyes.reader(model)
        reader.embed_tokens = Vectors(reader.embed_tokens, gallery, self.sight)
        self._eyes = eyes
        self._gallery = gallery
        self._clock = clock
        self._waiting: deque[tuple[int, Look]] = deque()
        self._steps: Steps | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, ticket: int, look: Look) -> None:
        self._waiting.append((ticket, look))

    def remove(self, tickets: Container[int]) -> None:
        if self._waiting and self._waiting[0][0] in tickets:
            self._steps = None
        self._waiting = deque(one for one in self._waiting if one[0] not in tickets)

    def clear(self) -> list[int]:
        """Whose picture was being looked at; what the others have is whole."""
        self._steps = None
        return [self._waiting.popleft()[0]] if self._waiting else []

    def drop(self) -> None:
        """Give memory back that is held for whoever shows the same again."""
        self._gallery.clear()

    def step(self) -> int | None:
        """The ticket of a picture that the model can read now."""
        if not self._waiting:
            return None
        ticket, look = self._waiting[0]
        if look.vectors is None and not self._seen(look):
            return None
        self._waiting.popleft()
        return ticket

    def _seen(self, look: Look) -> bool:
        """All of it, after another turn."""
        steps = self._steps = self._steps or self._every(look)
        until = self._clock() + _TURN
        try:
            next(steps)
            while self._clock() < until:
                next(steps)
        except StopIteration as ended:
            look.vectors, look.tiles, self._steps = ended.value, None, None
            self._gallery.keep(look)
            return True
        return False

    def _every(self, look: Look) -> Steps:
        assert look.tiles is not None
        found = []
        for tile in look.tiles:
            vectors = yield from self._eyes.look(tile)
            mx.eval(vectors)
            found.append(vectors)
            yield
        whole = mx.concatenate(found)
        mx.eval(whole)
        return whole
