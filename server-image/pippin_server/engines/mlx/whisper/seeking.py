"""What a window's tokens say of time: its passages, and where the next window begins. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: Samples of a step of time, of which tokens speak.
STEP = 320


@dataclass(frozen=True, slots=True)
class Piece:
    """Between two times, in samples from the window's beginning."""

    start: int
    end: int
    tokens: tuple[int, ...]


def read(tokens: Sequence[int], times: int, length: int) -> tuple[list[Piece], int]:
    """The passages, and by how many samples to go on. `times`: the token of the window's beginning;
    `length`: its samples.

    Two times side by side end one passage and begin the next. What is behind the last such pair was
    cut off by the window's end: it is heard again from there. A single time at the very end says
    that nothing comes after it.
    """
    is_time = [token >= times for token in tokens]
    cuts = [i for i in range(1, len(tokens)) if is_time[i - 1] and is_time[i]]
    single = is_time[-2:] == [False, True]
    if not cuts:
        told = [token for token in tokens if token > times]
        end = min((told[-1] - times) * STEP, length) if told else length
        return [Piece(0, end, tuple(tokens))], length
    pieces = [
        _piece(tokens[begin:end], times, length)
        for begin, end in zip([0, *cuts], [*cuts, len(tokens)] if single else cuts, strict=False)
    ]
    if single:
        return pieces, length
    return pieces, max(STEP, min((tokens[cuts[-1] - 1] - times) * STEP, length))


def _piece(tokens: Sequence[int], times: int, length: int) -> Piece:
    first, last = ((token - times) * STEP for token in (tokens[0], tokens[-1]))
    return Piece(min(first, length), min(last, length), tuple(tokens))
