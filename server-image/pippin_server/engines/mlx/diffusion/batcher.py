"""Pictures one after the other: who came first has a step, until the picture is there."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from ...base import EngineError
from ..loading import translated
from .drawing import Drawing, Model, Step
from .job import Job, Painted


class Hand:
    """A Batcher. Two pictures at once would both be there as late as the second is."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._row: deque[tuple[int, Iterator[Step]]] = deque()

    def add(self, ticket: int, job: Job) -> None:
        self._row.append((ticket, Drawing(self._model, job).steps()))

    def remove(self, tickets: Iterable[int]) -> None:
        gone = set(tickets)
        self._row = deque(one for one in self._row if one[0] not in gone)

    def step(self) -> Sequence[tuple[int, Painted | Exception]]:
        ticket, steps = self._row[0]
        try:
            pixels = next(steps)
        except EngineError as error:
            self._row.popleft()
            return [(ticket, error)]
        except (RuntimeError, MemoryError) as error:
            raise translated(error) from error
        if pixels is None:
            return ()
        self._row.popleft()
        return [(ticket, Painted(pixels))]

    def reset(self) -> Sequence[int]:
        """Whose turn it was; the others have lost nothing."""
        return [self._row.popleft()[0]] if self._row else []

    @property
    def size(self) -> int:
        return len(self._row)
