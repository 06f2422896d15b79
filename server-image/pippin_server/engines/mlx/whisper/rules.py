"""Which tokens may come next in a transcript, as the models were trained: a time begins it, and
times come in pairs and do not go back. Needs no MLX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .mel import Floats


@dataclass(frozen=True, slots=True)
class Rules:
    """Words lie below `end`, times from `times` on. `latest_first`: the latest beginning, in steps
    of time."""

    end: int
    times: int
    never: tuple[int, ...]
    never_first: tuple[int, ...]
    latest_first: int

    def apply(self, logits: Floats, said: Sequence[int]) -> None:
        """To one token's, in place. `said`: what was chosen so far."""
        logits[list(self.never)] = -np.inf
        if not said:
            logits[list(self.never_first)] = -np.inf
            logits[: self.times] = -np.inf
            logits[self.times + self.latest_first + 1 :] = -np.inf
            return
        self._pairs(logits, said)
        self._forward(logits, said)
        self._likelier(logits)

    def _pairs(self, logits: Floats, said: Sequence[int]) -> None:
        if said[-1] < self.times:
            return
        if len(said) < 2 or said[-2] >= self.times:
            logits[self.times :] = -np.inf
        else:
            logits[: self.end] = -np.inf

    def _forward(self, logits: Floats, said: Sequence[int]) -> None:
        """A passage takes some time; the next may begin when it ends."""
        told = [token for token in said if token >= self.times]
        closed = said[-1] >= self.times and (len(said) > 1 and said[-2] < self.times)
        earliest = told[-1] + (0 if closed else 1)
        logits[self.times : earliest] = -np.inf

    def _likelier(self, logits: Floats) -> None:
        """Times together may be likelier than any word."""
        words, times = logits[: self.times], logits[self.times :]
        most = float(times.max())
        if most == -np.inf:
            return
        together = most + float(np.log(np.exp(times - most).sum()))
        if together > words.max():
            words[:] = -np.inf


def logprobs(logits: Floats) -> Floats:
    most = logits.max()
    found: Floats = logits - (most + np.log(np.exp(logits - most).sum()))
    return found


def choose(logits: Floats, temperature: float, random: np.random.Generator) -> int:
    if not temperature:
        return int(logits.argmax())
    # The largest of what is shaken so is drawn as likely as it is.
    return int((logits / temperature + random.gumbel(size=logits.shape)).argmax())
