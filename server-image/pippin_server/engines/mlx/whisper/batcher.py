"""Recordings take turns, a window each: what a window needs is only once in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from ...base import EngineError
from ..loading import translated
from .job import Heard, Job
from .listening import Listening, Step
from .model import Model


class Ears:
    """A Batcher: the first in the row has the turn."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._row: deque[tuple[int, Iterator[Step]]] = deque()

    def add(self, ticket: int, job: Job) -> None:
        self._row.append((ticket, Listening(self._model, job.recording, job.hearing).steps()))

    def remove(self, tickets: Iterable[int]) -> None:
        gone = set(tickets)
        self._row = deque(one for one in self._row if one[0] not in gone)

    def step(self) -> Sequence[tuple[int, Heard | Exception]]:
        ticket, steps = self._row[0]
        try:
            passages = next(steps)
        except StopIteration:
            self._row.popleft()
            return [(ticket, Heard((), "stop"))]
        except EngineError as error:
            self._row.popleft()
            return [(ticket, error)]
        except (RuntimeError, MemoryError) as error:
            raise translated(error) from error
        if passages is None:
            return ()
        self._row.rotate(-1)
        return [(ticket, Heard(passages))] if passages else ()

    def reset(self) -> Sequence[int]:
        """Whose turn it was; the others have lost nothing."""
        return [self._row.popleft()[0]] if self._row else []

    @property
    def size(self) -> int:
        return len(self._row)
